"""Mapper B: an image and a text stream that read each other through cross-attention."""

from __future__ import annotations

from typing import cast

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
        v, t = self.begin_image(image), self.begin_text(text, causal)
        for number in range(len(self.image_layers)):
            v, t = self._read_themselves(number, v, t, causal) if number else (v, t)
            v, t = self._read_each_other(number, v, t, causal)
        return v.x, t.x

    def readout(self, image: Tokens, text: Tokens) -> Tensor:
        """The read-out token, [B, d]; the last layer runs for that token alone, unless it is being recorded."""
        return self.finish(self.begin_image(image), self.begin_text(text))

    def begin_image(self, image: Tokens) -> Stream:
        """The image stream after the first layer's self-attention."""
        x, valid = self.read.extend(self.project_image(image), image.valid)
        return Stream(_branch(self.image_layers, 0).self_attention(x, x, key_mask(valid)), valid)

    def begin_text(self, text: Tokens, causal: bool = False) -> Stream:
        """The text stream after the first layer's self-attention."""
        x = self.project_text(text)
        return Stream(_branch(self.text_layers, 0).self_attention(x, x, _self_mask(text.valid, causal)), text.valid)

    def finish(self, image: Stream, text: Stream) -> Tensor:
        """The read-out token, [B, d], of streams that were begun."""
        last = len(self.image_layers) - 1
        recording = active_recorder() is not None
        for number in range(last):
            image, text = self._read_each_other(number, image, text)
            if recording or number + 1 < last:
                image, text = self._read_themselves(number + 1, image, text)
        place = self.read.place(text.valid)
        if recording:
            image, text = self._read_each_other(last, image, text)
            return pick(text.x if self.read.stream == "text" else image.x, place)[:, 0]
        own, other, branch, opposite = image, text, *self._layer(last)
        if self.read.stream == "text":
            own, other, branch, opposite = other, own, opposite, branch
        x, context, mask = pick(own.x, place), other.x, key_mask(other.valid)
        if last:  # the first layer's self-attention is run when a stream begins
            x = branch.self_attention(x, own.x, key_mask(own.valid))
            context = opposite.self_attention(context, context, mask)
        return branch.feed_forward(branch.cross_attention(x, context, mask))[:, 0]

    def _read_themselves(self, number: int, image: Stream, text: Stream, causal: bool = False) -> tuple[Stream, Stream]:
        """Both self-attentions of a layer."""
        own_image, own_text = self._layer(number)
        v = own_image.self_attention(image.x, image.x, key_mask(image.valid))
        t = own_text.self_attention(text.x, text.x, _self_mask(text.valid, causal))
        return Stream(v, image.valid), Stream(t, text.valid)

    def _read_each_other(self, number: int, image: Stream, text: Stream, causal: bool = False) -> tuple[Stream, Stream]:
        """Both cross-attentions and feed-forwards of a layer."""
        own_image, own_text = self._layer(number)
        recorder = active_recorder()  # neither branch sees what the other adds here: one stage
        stage = None if recorder is None else recorder.new_stage()
        context, key = (image, "image") if causal else (text, "text")
        v = own_image.cross_attention(image.x, context.x, key_mask(context.valid), stage=stage, key=key)
        t = own_text.cross_attention(text.x, image.x, key_mask(image.valid), stage=stage)
        return Stream(own_image.feed_forward(v), image.valid), Stream(own_text.feed_forward(t), text.valid)

    def _layer(self, number: int) -> tuple[Branch, Branch]:
        """The image's and the text's branch."""
        return _branch(self.image_layers, number), _branch(self.text_layers, number)


def _branch(layers: nn.ModuleList, number: int) -> Branch:
    return cast(Branch, layers[number])


def _self_mask(valid: Tensor, causal: bool) -> Tensor | None:
    mask = key_mask(valid)
    if not causal:
        return mask
    earlier = causal_mask(valid.shape[1], valid.device)
    return earlier if mask is None else mask & earlier
