"""Mapper A: image and text tokens in one stream, self-attention over both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipmapper.config.schema import MapperConfig
from clipmapper.mapper.blocks import (
    AttentionSublayer,
    FeedForward,
    Readout,
    Stream,
    TokenProjection,
    causal_mask,
    key_mask,
    pick,
)
from clipmapper.nn import Tokens
from explain.capture.recording import active_recorder


class SingleStream(nn.Module):
    """Mapper A: 8 pre-norm blocks by default, each with 12·d² weights (docs/method.md, CLIPmapper).

    Args:
        config: The mapper's config.
        image_width: Width of the encoder's image tokens.
        text_width: Width of the encoder's text tokens.
        image_tokens: Greatest number of image tokens.
        text_tokens: Greatest number of text tokens.
    """

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
        """Return both streams after the last block, [B, n_v, d] and [B, n_t, d].

        With ``causal``, as captions need it, text tokens attend to the image and to earlier text tokens only, and image
        tokens never attend to text.
        """
        v, t = self.begin_image(image), self.begin_text(text)
        x, mask = _join(v, t)
        if causal:
            allowed = _caption_mask(v.x.shape[1], t.x.shape[1], x.device)
            mask = allowed if mask is None else mask & allowed
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = feed_forward(attention(x, x, mask))
        return x[:, : v.x.shape[1]], x[:, v.x.shape[1] :]

    def readout(self, image: Tokens, text: Tokens) -> Tensor:
        """Return the read-out token after the last block, [B, d].

        The last block runs for that token alone, except while attention is recorded.
        """
        return self.finish(self.begin_image(image), self.begin_text(text))

    def begin_image(self, image: Tokens) -> Stream:
        """Return the image stream before the first block."""
        return Stream(*self.read.extend(self.project_image(image), image.valid))

    def begin_text(self, text: Tokens) -> Stream:
        """Return the text stream before the first block."""
        return Stream(self.project_text(text), text.valid)

    def finish(self, image: Stream, text: Stream) -> Tensor:
        """Return the read-out token, [B, d], for streams from :meth:`begin_image` and :meth:`begin_text`."""
        x, mask = _join(image, text)
        place = self.read.place(text.valid) + (image.x.shape[1] if self.read.stream == "text" else 0)
        for attention, feed_forward in zip(self.attentions[:-1], self.feed_forwards[:-1], strict=True):
            x = feed_forward(attention(x, x, mask))
        if active_recorder() is not None:
            return pick(self.feed_forwards[-1](self.attentions[-1](x, x, mask)), place)[:, 0]
        return self.feed_forwards[-1](self.attentions[-1](pick(x, place), x, mask))[:, 0]


def _join(image: Stream, text: Stream) -> tuple[Tensor, Tensor | None]:
    """Return the joint sequence [B, n_v + n_t, d], image tokens first, and its attention mask."""
    return torch.cat([image.x, text.x], 1), key_mask(torch.cat([image.valid, text.valid], 1))


def _caption_mask(image_length: int, text_length: int, device: torch.device) -> Tensor:
    """Return bool [N, N]: text attends to the image and to earlier text, the image attends to the image only."""
    allowed = torch.ones(image_length + text_length, image_length + text_length, dtype=torch.bool, device=device)
    allowed[:image_length, image_length:] = False
    allowed[image_length:, image_length:] = causal_mask(text_length, device)
    return allowed
