"""CLIPmapper for captions: the frozen encoder, a mapper, and a head that names the next token at every word."""

from __future__ import annotations

from torch import Tensor, nn

from clipmapper.captioning.vocabulary import CaptionVocabulary
from clipmapper.config import MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.mapper import build_mapper
from clipmapper.tokens import Tokens, TokenSubset


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

    def __init__(self, encoder: FrozenClip, caption: CaptionMapper, vocabulary: CaptionVocabulary):
        super().__init__()
        self.encoder = encoder
        self.caption = caption
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
        return self.caption(image, text)
