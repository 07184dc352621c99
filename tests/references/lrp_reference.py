"""The LRP rules for one sample, and LRP through a transformer, written as loops over plain float64 numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def sd(a: float, b: float) -> float:
    """Return safe division: a / (b + 1e-9), and 0 where b = 0."""
    return 0.0 if b == 0 else a / (b + 1e-9)


def linear(x: Array, weight: Array, r: Array) -> Array:
    """Return the relevance of x [n, in] in x Wᵀ, from weight [out, in] and relevance r [n, out]."""
    out = np.zeros_like(x)
    for n, o in product(*map(range, r.shape)):
        z = 0.0
        for i in range(x.shape[1]):
            z += max(x[n, i], 0) * max(weight[o, i], 0) + min(x[n, i], 0) * min(weight[o, i], 0)
        for i in range(x.shape[1]):
            if x[n, i] * weight[o, i] > 0:
                out[n, i] += x[n, i] * weight[o, i] * sd(r[n, o], z)
    return out


def matmul(x: Array, y: Array, r: Array) -> tuple[Array, Array]:
    """Return the relevance of both factors of a product, halved: x [n, k], y [k, m], relevance r [n, m]."""
    x_out, y_out = np.zeros_like(x), np.zeros_like(y)
    for n, m in product(*map(range, r.shape)):
        s = sd(r[n, m], sum(x[n, k] * y[k, m] for k in range(x.shape[1])))
        for k in range(x.shape[1]):
            x_out[n, k] += x[n, k] * y[k, m] * s / 2
            y_out[k, m] += x[n, k] * y[k, m] * s / 2
    return x_out, y_out


def add(a: Array, b: Array, r: Array) -> tuple[Array, Array]:
    """Return the relevance of both terms of a + b for one sample; a, b and r have the same shape."""
    a_out, b_out = np.zeros_like(r), np.zeros_like(r)
    for at in np.ndindex(*r.shape):
        a_out[at] = a[at] * sd(r[at], a[at] + b[at])
        b_out[at] = b[at] * sd(r[at], a[at] + b[at])
    a_sum, b_sum, total = a_out.sum(), b_out.sum(), r.sum()
    both = abs(a_sum) + abs(b_sum)
    a_share, b_share = (0.0, 0.0) if both == 0 else (abs(a_sum) / both * total, abs(b_sum) / both * total)
    return a_out * (a_share / a_sum if a_sum else 0), b_out * (b_share / b_sum if b_sum else 0)


def clone(x: Array, *relevances: Array) -> Array:
    """Return the relevance of a tensor x that is used several times, x · Σ_i sd(R_i, x)."""
    out = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        out[at] = x[at] * sum(sd(r[at], x[at]) for r in relevances)
    return out


class Attention:
    """Multi-head attention of one sample, whose forward pass keeps what the relevance pass needs.

    ``parts`` are the linear layers of queries, keys, values and output, each (weight [out, in], bias). ``mask`` is
    added to the scores.
    """

    def __init__(self, parts: Sequence[tuple[Array, Array]], heads: int, mask: Array | None = None) -> None:
        (self.to_q, self.to_k, self.to_v, self.to_out), self.heads, self.mask = parts, heads, mask

    def forward(self, h: Array, context: Array) -> Array:
        self.h, self.context = h, context
        self.q, self.k, self.v = (x @ w.T + b for x, (w, b) in zip(self.streams, self.projections, strict=True))
        self.a, heads = [], []
        for part in self.parts:
            scores = self.q[:, part] @ self.k[:, part].T / math.sqrt(h.shape[1] / self.heads)
            scores = np.exp(scores if self.mask is None else scores + self.mask[: len(h), : len(h)])
            self.a.append(scores / scores.sum(1, keepdims=True))
            heads.append(self.a[-1] @ self.v[:, part])
        self.o = np.concatenate(heads, 1)
        return self.o @ self.to_out[0].T + self.to_out[1]

    def backward(self, r: Array) -> tuple[list[Array], Array]:
        """Propagate the relevance of the output.

        Returns:
            The relevance of ``h`` through the queries, of the context through the keys and through the values, and the
            relevance of A, [H, n, m].
        """
        of_o = linear(self.o, self.to_out[0], r)
        of_a = []
        of_q, of_k, of_v = np.zeros_like(self.q), np.zeros_like(self.k), np.zeros_like(self.v)
        for a, part in zip(self.a, self.parts, strict=True):
            head, of_v[:, part] = matmul(a, self.v[:, part], of_o[:, part])
            of_a.append(head)
            of_q[:, part], transposed = matmul(self.q[:, part], self.k[:, part].T, head)
            of_k[:, part] = transposed.T
        relevances = zip(self.streams, self.projections, (of_q, of_k, of_v), strict=True)
        return [linear(x, w, of_x) for x, (w, _), of_x in relevances], np.stack(of_a)

    @property
    def streams(self) -> tuple[Array, Array, Array]:
        return self.h, self.context, self.context

    @property
    def projections(self) -> tuple[tuple[Array, Array], ...]:
        return self.to_q, self.to_k, self.to_v

    @property
    def parts(self) -> list[slice]:
        width = self.q.shape[1] // self.heads
        return [slice(h * width, (h + 1) * width) for h in range(self.heads)]


class FeedForward:
    """Two linear layers with an activation between them."""

    def __init__(self, inner: Any, outer: Any) -> None:
        self.inner, self.outer = inner, outer

    def forward(self, h: Array) -> Array:
        self.h, self.g = h, gelu(affine(self.inner, h))
        return affine(self.outer, self.g)

    def backward(self, r: Array) -> Array:
        return linear(self.h, matrix(self.inner), linear(self.g, matrix(self.outer), r))


class Layer:
    """One pre-norm block on one sample; ``scales`` [D] multiply the outputs of its two branches."""

    def __init__(
        self, norms: tuple[Any, Any], attention: Attention, feed_forward: FeedForward, scales: Sequence[Array] = (1, 1)
    ) -> None:
        self.norms, self.attention, self.feed_forward, self.scales = norms, attention, feed_forward, scales

    def forward(self, x: Array) -> Array:
        h = norm(self.norms[0], x)
        self.x, self.y = x, self.attention.forward(h, h) * self.scales[0]
        self.x1 = x + self.y
        self.f = self.feed_forward.forward(norm(self.norms[1], self.x1)) * self.scales[1]
        return self.x1 + self.f

    def backward(self, r: Array) -> tuple[Array, Array]:
        """Return the relevance of the block's input and of A, [H, N, N], from that of its output."""
        skip, branch = add(self.x1, self.f, r)
        skip, branch = add(self.x, self.y, clone(self.x1, skip, self.feed_forward.backward(branch)))
        of_x, of_a = self.attention.backward(branch)
        return clone(self.x, skip, *of_x), of_a


class PostNorm:
    """A post-norm block, norm(x + branch); relevance passes the norm unchanged."""

    def __init__(self, layer_norm: Any, branch: Any) -> None:
        self.norm, self.branch = layer_norm, branch

    def forward(self, x: Array, *context: Array) -> Array:
        self.x, self.y = x, self.branch.forward(x, *context)
        return norm(self.norm, x + self.y)

    def backward(self, r: Array) -> tuple[Array, Any]:
        """Return the relevance of x through the skip connection, and the branch's result."""
        skip, branch = add(self.x, self.y, r)
        return skip, self.branch.backward(branch)


def mapper_layer(attention: Any, feed_forward: Any) -> Layer:
    """Return a block of mapper A."""
    keys_values, bias = matrix(attention.key_value), vector(attention.key_value.bias)
    width = len(bias) // 2
    parts = [
        pair(attention.query),
        (keys_values[:width], bias[:width]),
        (keys_values[width:], bias[width:]),
        pair(attention.out),
    ]
    norms = attention.norm, feed_forward.norm
    return Layer(norms, Attention(parts, attention.heads), FeedForward(feed_forward.inner, feed_forward.outer))


def backward(layers: Sequence[Layer], r: Array) -> list[Array]:
    """Return the relevance [H, N, N] of every layer's A, from the relevance of the last layer's output."""
    found: list[Array] = []
    for layer in reversed(layers):
        r, of_a = layer.backward(r)
        found.insert(0, of_a)
    return found


def attention_relevance(layers: list[Layer], head: Any, x: Array, place: int, answer: int) -> list[Array]:
    """Return the relevance [H, N, N] of every layer's A for one logit.

    The logit is read at position ``place`` through a norm and a linear head.
    """
    for layer in layers:
        x = layer.forward(x)
    r = np.zeros_like(x)
    start = one_hot(head[1].out_features, answer)
    r[place] = linear(norm(head[0], x[place : place + 1]), matrix(head[1]), start)[0]
    return backward(layers, r)


def one_hot(count: int, place: int) -> Array:
    """Return [1, count] zeros with a one at ``place``."""
    start = np.zeros((1, count))
    start[0, place] = 1
    return start


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def norm(layer: Any, x: Array) -> Array:
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def affine(layer: Any, x: Array) -> Array:
    return x @ matrix(layer).T + layer.bias.detach().numpy()


def matrix(layer: Any) -> Array:
    return vector(layer.weight)


def vector(parameter: Any) -> Array:
    values: Array = parameter.detach().numpy()
    return values


def pair(layer: Any) -> tuple[Array, Array]:
    """Return the weight and the bias of a layer."""
    return matrix(layer), vector(layer.bias)
