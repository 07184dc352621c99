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
    """One stream's half of a layer: self-attention, cross-attention, feed-forward; 16·d² weights.

    Args:
        config: The mapper's config.
        own: Modality of the branch, ``image`` or ``text``.
        other: Modality that its cross-attention reads.
    """

    def __init__(self, config: MapperConfig, own: str, other: str):
        super().__init__()
        self.self_attention = AttentionSublayer(config.width, config.heads, config.dropout, own, own)
        self.cross_attention = AttentionSublayer(config.width, config.heads, config.dropout, own, other)
        self.feed_forward = FeedForward(config.width, config.dropout)


class DualStream(nn.Module):
    """Mapper B: 3 layers by default, each with an image branch and a text branch (docs/method.md, CLIPmapper).

    In each layer, the cross-attention of both branches reads the other branch as it was after its self-attention.

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
        self.image_layers = nn.ModuleList(Branch(config, "image", "text") for _ in range(config.layers))
        self.text_layers = nn.ModuleList(Branch(config, "text", "image") for _ in range(config.layers))

    def forward(self, image: Tokens, text: Tokens, causal: bool = False) -> tuple[Tensor, Tensor]:
        """Return both streams after the last layer, [B, n_v, d] and [B, n_t, d].

        With ``causal``, as captions need it, text tokens attend to the image and to earlier text tokens only, and the
        second attention of the image branch reads the image branch instead of the text.
        """
        v, t = self.begin_image(image), self.begin_text(text, causal)
        for number in range(len(self.image_layers)):
            v, t = self._self_attend(number, v, t, causal) if number else (v, t)
            v, t = self._cross_attend(number, v, t, causal)
        return v.x, t.x

    def readout(self, image: Tokens, text: Tokens) -> Tensor:
        """Return the read-out token after the last layer, [B, d].

        The last layer runs for that token alone, except while attention is recorded.
        """
        return self.finish(self.begin_image(image), self.begin_text(text))

    def begin_image(self, image: Tokens) -> Stream:
        """Return the image stream after the first layer's self-attention."""
        x, valid = self.read.extend(self.project_image(image), image.valid)
        return Stream(_branch(self.image_layers, 0).self_attention(x, x, key_mask(valid)), valid)

    def begin_text(self, text: Tokens, causal: bool = False) -> Stream:
        """Return the text stream after the first layer's self-attention, causally masked on request."""
        x = self.project_text(text)
        return Stream(_branch(self.text_layers, 0).self_attention(x, x, _self_mask(text.valid, causal)), text.valid)

    def finish(self, image: Stream, text: Stream) -> Tensor:
        """Return the read-out token, [B, d], for streams from :meth:`begin_image` and :meth:`begin_text`."""
        last = len(self.image_layers) - 1
        recording = active_recorder() is not None
        for number in range(last):
            image, text = self._cross_attend(number, image, text)
            if recording or number + 1 < last:
                image, text = self._self_attend(number + 1, image, text)
        place = self.read.place(text.valid)
        if recording:
            image, text = self._cross_attend(last, image, text)
            return pick(text.x if self.read.stream == "text" else image.x, place)[:, 0]
        own, other, branch, opposite = image, text, *self._layer(last)
        if self.read.stream == "text":
            own, other, branch, opposite = other, own, opposite, branch
        x, context, mask = pick(own.x, place), other.x, key_mask(other.valid)
        if last:  # begin_image and begin_text have already run the first layer's self-attention
            x = branch.self_attention(x, own.x, key_mask(own.valid))
            context = opposite.self_attention(context, context, mask)
        return branch.feed_forward(branch.cross_attention(x, context, mask))[:, 0]

    def _self_attend(self, number: int, image: Stream, text: Stream, causal: bool = False) -> tuple[Stream, Stream]:
        """Run both self-attentions of a layer."""
        own_image, own_text = self._layer(number)
        v = own_image.self_attention(image.x, image.x, key_mask(image.valid))
        t = own_text.self_attention(text.x, text.x, _self_mask(text.valid, causal))
        return Stream(v, image.valid), Stream(t, text.valid)

    def _cross_attend(self, number: int, image: Stream, text: Stream, causal: bool = False) -> tuple[Stream, Stream]:
        """Run both cross-attentions and feed-forward sublayers of a layer."""
        own_image, own_text = self._layer(number)
        recorder = active_recorder()  # neither branch sees what the other adds here, so both steps share one stage
        stage = None if recorder is None else recorder.new_stage()
        context, key = (image, "image") if causal else (text, "text")
        v = own_image.cross_attention(image.x, context.x, key_mask(context.valid), stage=stage, key=key)
        t = own_text.cross_attention(text.x, image.x, key_mask(image.valid), stage=stage)
        return Stream(own_image.feed_forward(v), image.valid), Stream(own_text.feed_forward(t), text.valid)

    def _layer(self, number: int) -> tuple[Branch, Branch]:
        """Return the image branch and the text branch of a layer."""
        return _branch(self.image_layers, number), _branch(self.text_layers, number)


def _branch(layers: nn.ModuleList, number: int) -> Branch:
    return cast(Branch, layers[number])


def _self_mask(valid: Tensor, causal: bool) -> Tensor | None:
    mask = key_mask(valid)
    if not causal:
        return mask
    earlier = causal_mask(valid.shape[1], valid.device)
    return earlier if mask is None else mask & earlier
