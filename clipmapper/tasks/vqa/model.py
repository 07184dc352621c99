"""CLIPmapper for visual question answering: the frozen encoder, a mapper, and a head on its read-out token."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from clipmapper.checkpoint import fill, open_checkpoint
from clipmapper.config.schema import Config, MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.explaining.familiarity import Familiarity
from clipmapper.mapper.build import build_mapper
from clipmapper.nn import Tokens, TokenSubset


class VQAMapper(nn.Module):
    """The trained part of CLIPmapper for VQA: a mapper, and a classification head on its read-out token.

    Args:
        config: The mapper's config.
        image_width: Width of the encoder's image tokens.
        text_width: Width of the encoder's text tokens.
        image_tokens: Greatest number of image tokens.
        text_tokens: Greatest number of text tokens.
        answers: Number of answers.
    """

    def __init__(
        self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int, answers: int
    ):
        super().__init__()
        self.mapper = build_mapper(config, image_width, text_width, image_tokens, text_tokens)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, answers))

    def forward(self, image: Tokens, text: Tokens) -> Tensor:
        """Return the logits of all answers, [B, answers], for the encoder's tokens."""
        return self.head(self.mapper.readout(image, text))


class CLIPMapperVQA(nn.Module):
    """The whole CLIPmapper for VQA: from images and questions to logits of answers.

    Args:
        encoder: The frozen CLIP.
        trained: The trained part.
        answers: Answer of each class.
        familiarity: What is known about the training data; None for nothing.
    """

    def __init__(
        self,
        encoder: FrozenClip,
        trained: VQAMapper,
        answers: tuple[str, ...],
        familiarity: Familiarity | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.trained = trained
        self.answers = answers
        self.familiarity = familiarity or Familiarity()

    def forward(
        self,
        pixels: Tensor,
        questions: TextBatch,
        image_subset: TokenSubset | None = None,
        text_subset: TokenSubset | None = None,
    ) -> Tensor:
        """Return the logits of all answers, [B, answers].

        Args:
            pixels: Preprocessed images, [B, 3, H, W].
            questions: B questions.
            image_subset: Kept image tokens; the others are removed at the input of the image encoder. None keeps all.
            text_subset: Kept text tokens; the others are removed at the input of the text encoder. None keeps all.
        """
        image = self.encoder.vision(pixels, image_subset)
        text = self.encoder.text(questions.ids, questions.valid, text_subset)
        return self.trained(image, text)


def load_vqa(path: Path, config: Config | None = None) -> CLIPMapperVQA:
    """Load the whole model of a checkpoint, frozen and in evaluation mode.

    Args:
        path: The checkpoint.
        config: A config whose mapper and encoder must be those of the checkpoint; None accepts any checkpoint.

    Raises:
        UserError: The checkpoint can't be read or differs from the config, or the encoder's weights have changed.
    """
    about, encoder, weights = open_checkpoint(path, config, "vqa", "answers")
    model = build_vqa(MapperConfig(**about["mapper"]), encoder, len(about["answers"]))
    fill(model, weights, path)
    whole = CLIPMapperVQA(encoder, model, tuple(about["answers"]), Familiarity.of_card(about))
    return whole.eval().requires_grad_(False)


def build_vqa(mapper: MapperConfig, encoder: FrozenClip, answers: int) -> VQAMapper:
    """Build the trained part for an encoder, with PyTorch's default initial weights."""
    vision, text = encoder.vision, encoder.text
    return VQAMapper(mapper, vision.width, text.width, vision.token_count, text.context_length, answers)
