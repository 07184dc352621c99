"""Both mappers on one sample, token by token and head by head, as docs/method.md, CLIPmapper, describes them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from clipmapper.mapper.blocks import FeedForward
from clipmapper.nn import Tokens


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def feed(layer: FeedForward, x: Tensor) -> Tensor:
    inner = norm(layer.norm, x) @ layer.inner.weight.T + layer.inner.bias
    return inner * (1 + torch.erf(inner / math.sqrt(2))) / 2 @ layer.outer.weight.T + layer.outer.bias


def attended(layer: Any, x: Tensor, context: Tensor, may: Any = lambda i, j: True) -> Tensor:
    """Return what the queries x [n, d] read from the context [m, d]; query i can read key j if ``may(i, j)``."""
    q = norm(layer.norm, x) @ layer.query.weight.T + layer.query.bias
    key_weight, value_weight = layer.key_value.weight.chunk(2)
    key_bias, value_bias = layer.key_value.bias.chunk(2)
    normed = norm(layer.context_norm, context)
    k, v = normed @ key_weight.T + key_bias, normed @ value_weight.T + value_bias
    width = x.shape[1] // layer.heads
    rows = []
    for i in range(len(x)):
        seen = [j for j in range(len(context)) if may(i, j)]
        heads = []
        for h in range(layer.heads):
            part = slice(h * width, (h + 1) * width)
            scores = torch.stack([q[i, part] @ k[j, part] for j in seen]) / math.sqrt(width)
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(weight * v[j, part] for weight, j in zip(weights, seen, strict=True)))
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ layer.out.weight.T + layer.out.bias


def projected(projection: Any, x: Tokens) -> Tensor:
    rows = x.features[0] @ projection.linear.weight.T + projection.linear.bias
    if projection.positions is None:
        return rows
    return torch.stack([row + projection.positions.weight[i] for row, i in zip(rows, x.index[0], strict=True)])


def slow_streams(mapper: Any, image: Tokens, text: Tokens) -> tuple[Tensor, Tensor]:
    v, t = projected(mapper.project_image, image), projected(mapper.project_text, text)
    return (v if mapper.read.learnt is None else torch.cat([mapper.read.learnt[None], v])), t


def slow_a(mapper: Any, image: Tokens, text: Tokens, causal: bool) -> tuple[Tensor, Tensor]:
    """Run mapper A on one sample: blocks of self-attention and feed-forward over the image and then the text."""
    v, t = slow_streams(mapper, image, text)
    n_v, x = len(v), torch.cat([v, t])
    for attention, feed_forward in zip(mapper.attentions, mapper.feed_forwards, strict=True):
        # If causal, a text token reads the image and the text up to itself, and an image token reads only the image.
        x = x + attended(attention, x, x, lambda i, j: not causal or j < n_v or (i >= n_v and j <= i))
        x = x + feed(feed_forward, x)
    return x[:n_v], x[n_v:]


def slow_b(mapper: Any, image: Tokens, text: Tokens, causal: bool) -> tuple[Tensor, Tensor]:
    """Run mapper B on one sample.

    Each layer has self-attention, then cross-attention to the other branch as it is after its self-attention, then
    feed-forward. If ``causal``, the second attention of the image branch reads the image branch instead.
    """
    v, t = slow_streams(mapper, image, text)
    for layer_v, layer_t in zip(mapper.image_layers, mapper.text_layers, strict=True):
        v = v + attended(layer_v.self_attention, v, v)
        t = t + attended(layer_t.self_attention, t, t, lambda i, j: not causal or j <= i)
        crossed_v = v + attended(layer_v.cross_attention, v, v if causal else t)
        crossed_t = t + attended(layer_t.cross_attention, t, v)
        v = crossed_v + feed(layer_v.feed_forward, crossed_v)
        t = crossed_t + feed(layer_t.feed_forward, crossed_t)
    return v, t


SLOW = {"a": slow_a, "b": slow_b}
