"""CLIPmapper for captions: the frozen encoder, a mapper, and a head that names the next token at every word."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from clipmapper.checkpoint import fill, open_checkpoint
from clipmapper.config.schema import Config, MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.mapper.build import build_mapper
from clipmapper.nn import Tokens, TokenSubset
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary


class CaptionMapper(nn.Module):
    """The trained part: frozen tokens of an image and of a caption's beginning → a logit for every next token."""

    def __init__(
        self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int, classes: int
    ):
        super().__init__()
        self.mapper = build_mapper(config, image_width, text_width, image_tokens, text_tokens)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, classes))

    def forward(self, image: Tokens, text: Tokens) -> Tensor:
        """Logits [B, N, classes]; those at place i see the image and the text up to i, and are of token i + 1."""
        _, words = self.mapper(image, text, causal=True)
        return self.head(words)


class CLIPMapperCaption(nn.Module):
    """Pictures and captions to logits, all of it."""

    def __init__(self, encoder: FrozenClip, trained: CaptionMapper, vocabulary: CaptionVocabulary):
        super().__init__()
        self.encoder = encoder
        self.trained = trained
        self.vocabulary = vocabulary

    def forward(
        self,
        pixels: Tensor,
        captions: TextBatch,
        image_subset: TokenSubset | None = None,
        text_subset: TokenSubset | None = None,
    ) -> Tensor:
        """Logits [B, N, classes] of the token after each of the captions' tokens, the start token first.

        The subsets leave tokens out from the encoders' input onwards.
        """
        image = self.encoder.vision(pixels, image_subset)
        text = self.encoder.text(captions.ids, captions.valid, text_subset)
        return self.trained(image, text)


def load_caption(path: Path, config: Config | None = None) -> CLIPMapperCaption:
    """The whole model, frozen and in evaluation mode, with the encoder the checkpoint was trained on.

    With ``config``, its mapper and encoder must be the checkpoint's; raises ``UserError`` naming what differs, also
    where the encoder's weights are no longer the same.
    """
    about, encoder, weights = open_checkpoint(path, config, "caption", "tokens")
    vocabulary = CaptionVocabulary(about["tokens"], encoder.tokenizer)
    model = build_caption(MapperConfig(**about["mapper"]), encoder, len(vocabulary))
    fill(model, weights, path)
    return CLIPMapperCaption(encoder, model, vocabulary).eval().requires_grad_(False)


def build_caption(mapper: MapperConfig, encoder: FrozenClip, classes: int) -> CaptionMapper:
    """The trained part for an encoder's widths and token counts, with PyTorch's own first weights.

    ``classes`` is the number of tokens to choose the next one from.
    """
    vision, text = encoder.vision, encoder.text
    return CaptionMapper(mapper, vision.width, text.width, vision.token_count, text.context_length, classes)
