"""CLIPmapper for captions: the frozen encoder, a mapper, and a head that predicts the next token at every position."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from clipmapper.checkpoint import fill, open_checkpoint
from clipmapper.config.schema import Config, MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.explaining.familiarity import Familiarity
from clipmapper.mapper.build import build_mapper
from clipmapper.nn import Tokens, TokenSubset
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary


class CaptionMapper(nn.Module):
    """The trained part of CLIPmapper for captions: a causal mapper, and a head that predicts the next token.

    Args:
        config: The mapper's config.
        image_width: Width of the encoder's image tokens.
        text_width: Width of the encoder's text tokens.
        image_tokens: Greatest number of image tokens.
        text_tokens: Greatest number of text tokens.
        classes: Number of tokens that can be generated.
    """

    def __init__(
        self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int, classes: int
    ):
        super().__init__()
        self.mapper = build_mapper(config, image_width, text_width, image_tokens, text_tokens)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, classes))

    def forward(self, image: Tokens, text: Tokens) -> Tensor:
        """Return the logits of the next token at each text position, [B, N, classes].

        The logits at position i depend on the image and the text tokens up to i, and predict text token i + 1.
        """
        _, words = self.mapper(image, text, causal=True)
        return self.head(words)


class CLIPMapperCaption(nn.Module):
    """The whole CLIPmapper for captions: from images and captions to next-token logits.

    Args:
        encoder: The frozen CLIP.
        trained: The trained part.
        vocabulary: The tokens that can be generated.
        familiarity: What is known about the training data; None for nothing.
    """

    def __init__(
        self,
        encoder: FrozenClip,
        trained: CaptionMapper,
        vocabulary: CaptionVocabulary,
        familiarity: Familiarity | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.trained = trained
        self.vocabulary = vocabulary
        self.familiarity = familiarity or Familiarity()

    def forward(
        self,
        pixels: Tensor,
        captions: TextBatch,
        image_subset: TokenSubset | None = None,
        text_subset: TokenSubset | None = None,
    ) -> Tensor:
        """Return the logits of the token after each text token, [B, N, classes].

        Args:
            pixels: Preprocessed images, [B, 3, H, W].
            captions: B captions, from their start token.
            image_subset: Kept image tokens; the others are removed at the input of the image encoder. None keeps all.
            text_subset: Kept text tokens; the others are removed at the input of the text encoder. None keeps all.
        """
        image = self.encoder.vision(pixels, image_subset)
        text = self.encoder.text(captions.ids, captions.valid, text_subset)
        return self.trained(image, text)


def load_caption(path: Path, config: Config | None = None) -> CLIPMapperCaption:
    """Load the whole model of a checkpoint, frozen and in evaluation mode.

    Args:
        path: The checkpoint.
        config: A config whose mapper and encoder must be those of the checkpoint; None accepts any checkpoint.

    Raises:
        UserError: The checkpoint can't be read or differs from the config, or the encoder's weights have changed.
    """
    about, encoder, weights = open_checkpoint(path, config, "caption", "tokens")
    vocabulary = CaptionVocabulary(about["tokens"], encoder.tokenizer)
    model = build_caption(MapperConfig(**about["mapper"]), encoder, len(vocabulary))
    fill(model, weights, path)
    whole = CLIPMapperCaption(encoder, model, vocabulary, Familiarity.of_card(about))
    return whole.eval().requires_grad_(False)


def build_caption(mapper: MapperConfig, encoder: FrozenClip, classes: int) -> CaptionMapper:
    """Build the trained part for an encoder, with PyTorch's default initial weights.

    ``classes`` is the number of tokens that can be generated.
    """
    vision, text = encoder.vision, encoder.text
    return CaptionMapper(mapper, vision.width, text.width, vision.token_count, text.context_length, classes)
