"""The LRP rules of one sample and a transformer's relevance pass, written out in float64 loops over plain numbers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def sd(a: float, b: float) -> float:
    return 0.0 if b == 0 else a / (b + 1e-9)


def linear(x: Array, weight: Array, r: Array) -> Array:
    """x [n, in], weight [out, in], r [n, out] → [n, in]."""
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
    """x [n, k], y [k, m], r [n, m] → both relevances, halved."""
    x_out, y_out = np.zeros_like(x), np.zeros_like(y)
    for n, m in product(*map(range, r.shape)):
        s = sd(r[n, m], sum(x[n, k] * y[k, m] for k in range(x.shape[1])))
        for k in range(x.shape[1]):
            x_out[n, k] += x[n, k] * y[k, m] * s / 2
            y_out[k, m] += x[n, k] * y[k, m] * s / 2
    return x_out, y_out


def add(a: Array, b: Array, r: Array) -> tuple[Array, Array]:
    """a, b and r of one sample, all of one shape."""
    a_out, b_out = np.zeros_like(r), np.zeros_like(r)
    for at in np.ndindex(*r.shape):
        a_out[at] = a[at] * sd(r[at], a[at] + b[at])
        b_out[at] = b[at] * sd(r[at], a[at] + b[at])
    a_sum, b_sum, total = a_out.sum(), b_out.sum(), r.sum()
    a_share = sd(abs(a_sum), abs(a_sum) + abs(b_sum)) * total
    b_share = sd(abs(b_sum), abs(a_sum) + abs(b_sum)) * total
    return a_out * sd(a_share, a_sum), b_out * sd(b_share, b_sum)


def clone(x: Array, *relevances: Array) -> Array:
    out = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        out[at] = x[at] * sum(sd(r[at], x[at]) for r in relevances)
    return out


class Layer:
    """One pre-norm block of mapper A on one sample: forward keeps what the relevance pass needs."""

    def __init__(self, attention: Any, feed_forward: Any) -> None:
        self.attention, self.feed_forward, self.heads = attention, feed_forward, attention.heads

    def forward(self, x: Array) -> Array:
        one, two = self.attention, self.feed_forward
        self.x, self.h = x, norm(one.norm, x)
        self.q, kv = affine(one.query, self.h), affine(one.key_value, self.h)
        self.k, self.v = kv[:, : x.shape[1]], kv[:, x.shape[1] :]
        self.a, heads = [], []
        for part in self.parts():
            scores = np.exp(self.q[:, part] @ self.k[:, part].T / math.sqrt(x.shape[1] / self.heads))
            self.a.append(scores / scores.sum(1, keepdims=True))
            heads.append(self.a[-1] @ self.v[:, part])
        self.o = np.concatenate(heads, 1)
        self.y = affine(one.out, self.o)
        self.x1 = x + self.y
        self.h1 = norm(two.norm, self.x1)
        inner = affine(two.inner, self.h1)
        self.g = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        self.f = affine(two.outer, self.g)
        return self.x1 + self.f

    def backward(self, r: Array) -> tuple[Array, Array]:
        """Relevance of the block's output → of its input and of A [H, N, N]."""
        one, two = self.attention, self.feed_forward
        skip, branch = add(self.x1, self.f, r)
        branch = linear(self.h1, matrix(two.inner), linear(self.g, matrix(two.outer), branch))
        skip, branch = add(self.x, self.y, clone(self.x1, skip, branch))
        of_o = linear(self.o, matrix(one.out), branch)
        of_a = []
        of_q, of_k, of_v = np.zeros_like(self.q), np.zeros_like(self.k), np.zeros_like(self.v)
        for a, part in zip(self.a, self.parts(), strict=True):
            head, of_v[:, part] = matmul(a, self.v[:, part], of_o[:, part])
            of_a.append(head)
            of_q[:, part], transposed = matmul(self.q[:, part], self.k[:, part].T, head)
            of_k[:, part] = transposed.T
        queries = linear(self.h, matrix(one.query), of_q)
        keys_values = linear(self.h, matrix(one.key_value), np.concatenate([of_k, of_v], 1))
        return clone(self.x, skip, queries, keys_values), np.stack(of_a)

    def parts(self) -> list[slice]:
        width = self.x.shape[1] // self.heads
        return [slice(h * width, (h + 1) * width) for h in range(self.heads)]


def attention_relevance(layers: list[Layer], head: Any, x: Array, place: int, answer: int) -> list[Array]:
    """The relevance [H, N, N] of every layer's A for one logit, read through a norm and a linear head at ``place``."""
    for layer in layers:
        x = layer.forward(x)
    start = np.zeros((1, head[1].out_features))
    start[0, answer] = 1
    r = np.zeros_like(x)
    r[place] = linear(norm(head[0], x[place : place + 1]), matrix(head[1]), start)[0]
    found: list[Array] = []
    for layer in reversed(layers):
        r, of_a = layer.backward(r)
        found.insert(0, of_a)
    return found


def norm(layer: Any, x: Array) -> Array:
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def affine(layer: Any, x: Array) -> Array:
    return x @ matrix(layer).T + layer.bias.detach().numpy()


def matrix(layer: Any) -> Array:
    weight: Array = layer.weight.detach().numpy()
    return weight
