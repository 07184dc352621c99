"""Mapper B: an image and a text stream that read each other through cross-attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clipmapper.config import MapperConfig
from clipmapper.mapper.blocks import (
    AttentionSublayer,
    FeedForward,
    Readout,
    TokenProjection,
    causal_mask,
    key_mask,
    pick,
)
from clipmapper.tokens import Tokens
from explain.recording import active_recorder


class Branch(nn.Module):
    """One stream's half of a layer: self-attention, then cross-attention, then feed-forward; 16·d² weights."""

    def __init__(self, config: MapperConfig, own: str, other: str):
        super().__init__()
        self.self_attention = AttentionSublayer(config.width, config.heads, config.dropout, own, own)
        self.cross_attention = AttentionSublayer(config.width, config.heads, config.dropout, own, other)
        self.feed_forward = FeedForward(config.width, config.dropout)


class DualStream(nn.Module):
    """3 layers by default; both branches of a layer read the other as it was after its self-attention."""

    def __init__(self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int):
        super().__init__()
        self.project_image = TokenProjection(image_width, config, image_tokens)
        self.project_text = TokenProjection(text_width, config, text_tokens)
        self.read = Readout(config)
        self.image_layers = nn.ModuleList(Branch(config, "image", "text") for _ in range(config.layers))
        self.text_layers = nn.ModuleList(Branch(config, "text", "image") for _ in range(config.layers))

    def forward(self, image: Tokens, text: Tokens, causal: bool = False) -> tuple[Tensor, Tensor]:
        """Both streams after the last layer, [B, n_v, d] and [B, n_t, d].

        ``causal``: as captions need it; the image branch's second attention then reads its own branch, not the text.
        """
        v, t, v_mask, t_mask = self._projected(image, text)
        t_self_mask = t_mask & causal_mask(t.shape[1], t.device) if causal else t_mask
        for number in range(len(self.image_layers)):
            v, t = self._layer(number, v, t, v_mask, t_mask, t_self_mask, causal)
        return v, t

    def readout(self, image: Tokens, text: Tokens) -> Tensor:
        """The read-out token, [B, d]; the last layer runs for that token alone, unless it is being recorded."""
        v, t, v_mask, t_mask = self._projected(image, text)
        place = self.read.place(text.valid)
        for number in range(len(self.image_layers) - 1):
            v, t = self._layer(number, v, t, v_mask, t_mask, t_mask, causal=False)
        if active_recorder() is not None:
            v, t = self._layer(len(self.image_layers) - 1, v, t, v_mask, t_mask, t_mask, causal=False)
            return pick(t if self.read.stream == "text" else v, place)[:, 0]
        own, other = (v, v_mask), (t, t_mask)
        branch: Any = self.image_layers[-1]
        opposite: Any = self.text_layers[-1]
        if self.read.stream == "text":
            own, other, branch, opposite = other, own, opposite, branch
        x = branch.self_attention(pick(own[0], place), *own)
        context = opposite.self_attention(other[0], *other)
        return branch.feed_forward(branch.cross_attention(x, context, other[1]))[:, 0]

    def _layer(
        self, number: int, v: Tensor, t: Tensor, v_mask: Tensor, t_mask: Tensor, t_self_mask: Tensor, causal: bool
    ) -> tuple[Tensor, Tensor]:
        image: Any = self.image_layers[number]
        text: Any = self.text_layers[number]
        v = image.self_attention(v, v, v_mask)
        t = text.self_attention(t, t, t_self_mask)
        recorder = active_recorder()  # neither branch sees what the other adds here: one stage
        stage = None if recorder is None else recorder.new_stage()
        context, mask, key = (v, v_mask, "image") if causal else (t, t_mask, "text")
        crossed_v = image.cross_attention(v, context, mask, stage=stage, key=key)
        crossed_t = text.cross_attention(t, v, v_mask, stage=stage)
        return image.feed_forward(crossed_v), text.feed_forward(crossed_t)

    def _projected(self, image: Tokens, text: Tokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        v, v_valid = self.read.extend(self.project_image(image), image.valid)
        return v, self.project_text(text), key_mask(v_valid), key_mask(text.valid)
