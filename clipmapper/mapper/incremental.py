"""Mappers that read a caption one token at a time and keep the keys and values of the image and of earlier tokens.

The image never attends to a caption's text, so it runs through the mapper once. The results equal those of
``forward(image, text, causal=True)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clipmapper.mapper.blocks import key_mask
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.mapper.single_stream import SingleStream
from clipmapper.nn import KeyValues, Tokens


class SingleStreamDecoder:
    """Mapper A, decoding: every block keeps the keys and values of the image and of the text tokens so far.

    Args:
        mapper: The mapper.
        image: The encoder's image tokens, [B, n_v, D].
        room: Greatest number of text tokens, including the start token.
    """

    def __init__(self, mapper: SingleStream, image: Tokens, room: int):
        self._mapper = mapper
        self._blocks: list[tuple[Any, Any]] = list(zip(mapper.attentions, mapper.feed_forwards, strict=True))
        self._caches = [KeyValues(room) for _ in self._blocks]
        x, self._valid = mapper.read.extend(mapper.project_image(image), image.valid)
        self._run(x)

    def next(self, token: Tokens) -> Tensor:
        """Read the next text token of each caption, [B, 1, D], and return it after the last block, [B, d]."""
        self._valid = torch.cat([self._valid, token.valid], 1)
        return self._run(self._mapper.project_text(token))[:, 0]

    def _run(self, x: Tensor) -> Tensor:
        mask = key_mask(self._valid)
        for (attention, feed_forward), cache in zip(self._blocks, self._caches, strict=True):
            x = feed_forward(attention.attend_to(x, *cache.extend(*attention.keys_values(x)), mask))
        return x


class DualStreamDecoder:
    """Mapper B, decoding: every text layer keeps the keys and values of the text tokens so far and of the image.

    Those of the image are computed once. The arguments are those of :class:`SingleStreamDecoder`.
    """

    def __init__(self, mapper: DualStream, image: Tokens, room: int):
        self._mapper = mapper
        self._layers: list[Any] = list(mapper.text_layers)
        self._caches = [KeyValues(room) for _ in self._layers]
        self._image: list[tuple[Tensor, Tensor]] = []
        v, valid = mapper.read.extend(mapper.project_image(image), image.valid)
        self._image_mask = key_mask(valid)
        image_layers: list[Any] = list(mapper.image_layers)
        for own, text in zip(image_layers, self._layers, strict=True):
            v = own.self_attention(v, v, self._image_mask)
            self._image.append(text.cross_attention.keys_values(v))
            v = own.feed_forward(own.cross_attention(v, v, self._image_mask))

    def next(self, token: Tokens) -> Tensor:
        """Read the next text token of each caption, [B, 1, D], and return it after the last layer, [B, d]."""
        t = self._mapper.project_text(token)
        for layer, cache, image in zip(self._layers, self._caches, self._image, strict=True):
            own = layer.self_attention
            t = own.attend_to(t, *cache.extend(*own.keys_values(t)), None)
            t = layer.feed_forward(layer.cross_attention.attend_to(t, *image, self._image_mask))
        return t[:, 0]


def start_decoding(
    mapper: SingleStream | DualStream, image: Tokens, room: int
) -> SingleStreamDecoder | DualStreamDecoder:
    """Return a decoder that has read the image and takes up to ``room`` text tokens, the start token first."""
    if isinstance(mapper, SingleStream):
        return SingleStreamDecoder(mapper, image, room)
    return DualStreamDecoder(mapper, image, room)
