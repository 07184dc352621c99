"""Mapper A: image and text tokens in one stream, self-attention over both."""

from __future__ import annotations

import torch
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


class SingleStream(nn.Module):
    """8 pre-norm blocks by default; 12·d² weights a block (METHOD: CLIPmapper, stage 2)."""

    def __init__(self, config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int):
        super().__init__()
        self.project_image = TokenProjection(image_width, config, image_tokens)
        self.project_text = TokenProjection(text_width, config, text_tokens)
        self.read = Readout(config)
        self.attentions = nn.ModuleList(
            AttentionSublayer(config.width, config.heads, config.dropout, "joint", "joint")
            for _ in range(config.layers)
        )
        self.feed_forwards = nn.ModuleList(FeedForward(config.width, config.dropout) for _ in range(config.layers))

    def forward(self, image: Tokens, text: Tokens, causal: bool = False) -> tuple[Tensor, Tensor]:
        """Both streams after the last block, [B, n_v, d] and [B, n_t, d]; ``causal``: as captions need it."""
        x, mask, image_length = self._joined(image, text, causal)
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = feed_forward(attention(x, x, mask))
        return x[:, :image_length], x[:, image_length:]

    def readout(self, image: Tokens, text: Tokens) -> Tensor:
        """The read-out token, [B, d]; the last block runs for that token alone, unless it is being recorded."""
        x, mask, image_length = self._joined(image, text, causal=False)
        place = self.read.place(text.valid) + (image_length if self.read.stream == "text" else 0)
        for attention, feed_forward in zip(self.attentions[:-1], self.feed_forwards[:-1], strict=True):
            x = feed_forward(attention(x, x, mask))
        if active_recorder() is not None:
            return pick(self.feed_forwards[-1](self.attentions[-1](x, x, mask)), place)[:, 0]
        return self.feed_forwards[-1](self.attentions[-1](pick(x, place), x, mask))[:, 0]

    def _joined(self, image: Tokens, text: Tokens, causal: bool) -> tuple[Tensor, Tensor, int]:
        v, v_valid = self.read.extend(self.project_image(image), image.valid)
        t = self.project_text(text)
        mask = key_mask(torch.cat([v_valid, text.valid], 1))
        if causal:  # text attends to the image and to earlier text, the image never to text
            n_v, n_t = v.shape[1], t.shape[1]
            allowed = torch.ones(n_v + n_t, n_v + n_t, dtype=torch.bool, device=v.device)
            allowed[:n_v, n_v:] = False
            allowed[n_v:, n_v:] = causal_mask(n_t, v.device)
            mask = mask & allowed
        return torch.cat([v, t], 1), mask, v.shape[1]
