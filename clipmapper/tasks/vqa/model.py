"""CLIPmapper for visual question answering: the frozen encoder, a mapper, and a head on its read-out token."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from clipmapper.checkpoint import fill, open_checkpoint
from clipmapper.config.schema import Config, MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.mapper.build import build_mapper
from clipmapper.nn import Tokens, TokenSubset


class VQAMapper(nn.Module):
    """The trained part: frozen tokens of both modalities → a logit for every answer."""

    def __init__(
        self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int, answers: int
    ):
        super().__init__()
        self.mapper = build_mapper(config, image_width, text_width, image_tokens, text_tokens)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, answers))

    def forward(self, image: Tokens, text: Tokens) -> Tensor:
        """Logits [B, answers]."""
        return self.head(self.mapper.readout(image, text))


class CLIPMapperVQA(nn.Module):
    """Pictures and questions to logits, all of it."""

    def __init__(self, encoder: FrozenClip, trained: VQAMapper, answers: tuple[str, ...]):
        super().__init__()
        self.encoder = encoder
        self.trained = trained
        self.answers = answers

    def forward(
        self,
        pixels: Tensor,
        questions: TextBatch,
        image_subset: TokenSubset | None = None,
        text_subset: TokenSubset | None = None,
    ) -> Tensor:
        """Logits [B, answers]; the subsets leave tokens out from the encoders' input onwards."""
        image = self.encoder.vision(pixels, image_subset)
        text = self.encoder.text(questions.ids, questions.valid, text_subset)
        return self.trained(image, text)


def load_vqa(path: Path, config: Config | None = None) -> CLIPMapperVQA:
    """The whole model, frozen and in evaluation mode, with the encoder the checkpoint was trained on.

    With ``config``, its mapper and encoder must be the checkpoint's; raises ``UserError`` naming what differs, also
    where the encoder's weights are no longer the same.
    """
    about, encoder, weights = open_checkpoint(path, config, "vqa", "answers")
    model = build_vqa(MapperConfig(**about["mapper"]), encoder, len(about["answers"]))
    fill(model, weights, path)
    return CLIPMapperVQA(encoder, model, tuple(about["answers"])).eval().requires_grad_(False)


def build_vqa(mapper: MapperConfig, encoder: FrozenClip, answers: int) -> VQAMapper:
    """The trained part for an encoder's widths and token counts, with PyTorch's own first weights."""
    vision, text = encoder.vision, encoder.text
    return VQAMapper(mapper, vision.width, text.width, vision.token_count, text.context_length, answers)
