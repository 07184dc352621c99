"""LRP through DINOv2 and a Llama decoder for one sample, with the loops of ``lrp_reference``: Rel_A of every layer."""

from __future__ import annotations

from typing import Any

import lrp_reference as slow
import numpy as np
from lrp_reference import Array, FeedForward, Layer


def dinov2(model: Any, x: Array, answer: int) -> list[Array]:
    """Return Rel_A of every layer; ``x`` [N, D] enters the first. The head reads the class token and the mean patch."""
    layers = []
    for layer in model.dinov2.encoder.layer:
        parts = [slow.pair(part) for part in _linear_layers(layer.attention)]
        scales = [slow.vector(scale.lambda1) for scale in (layer.layer_scale1, layer.layer_scale2)]
        attention = slow.Attention(parts, model.config.num_attention_heads)
        layers.append(Layer((layer.norm1, layer.norm2), attention, FeedForward(layer.mlp.fc1, layer.mlp.fc2), scales))
    for layer in layers:
        x = layer.forward(x)
    normed = slow.norm(model.dinov2.layernorm, x)
    read = np.concatenate([normed[:1], normed[1:].mean(0, keepdims=True)], 1)
    of_read = slow.linear(read, slow.matrix(model.classifier), slow.one_hot(model.classifier.out_features, answer))[0]
    of_class, of_mean = np.split(of_read, 2)
    of_patches = [[mean_share(normed[1:, c], n, of_mean[c]) for c in range(x.shape[1])] for n in range(len(x) - 1)]
    return slow.backward(layers, np.concatenate([of_class[None], np.array(of_patches)]))


def _linear_layers(attention: Any) -> tuple[Any, Any, Any, Any]:
    if hasattr(attention, "q_proj"):
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    inner = attention.attention  # in older versions of transformers
    return inner.query, inner.key, inner.value, attention.output.dense


def mean_share(values: Array, place: int, r: float) -> float:
    """Return the relevance of one of the values whose mean has relevance r."""
    return float(values[place] / len(values) * slow.sd(r, sum(values) / len(values)))


def llama(model: Any, head: Any, x: Array, answer: int) -> list[Array]:
    """Return Rel_A of every layer for a logit of the last token; ``x`` [N, D] enters the first layer."""
    layers = [_LlamaLayer(layer) for layer in model.layers]
    for layer in layers:
        x = layer.forward(x)
    last = rms_norm(model.norm, x[-1:])
    r = np.zeros_like(x)
    r[-1] = slow.linear(last, slow.matrix(head), slow.one_hot(head.out_features, answer))[0]
    found: list[Array] = []
    for layer in reversed(layers):
        r, of_a = layer.backward(r)
        found.insert(0, of_a)
    return found


def rms_norm(layer: Any, x: Array) -> Array:
    return slow.vector(layer.weight) * x / np.sqrt((x**2).mean(1, keepdims=True) + layer.variance_epsilon)


class _LlamaLayer:
    """RMSNorm, grouped attention with rotary positions, RMSNorm and a gated feed-forward network."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        own, mlp = layer.self_attn, layer.mlp
        self.to_q, self.to_k, self.to_v, self.to_o = (
            slow.matrix(part) for part in (own.q_proj, own.k_proj, own.v_proj, own.o_proj)
        )
        self.gate, self.up, self.down = (slow.matrix(part) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.size = own.head_dim

    def forward(self, x: Array) -> Array:
        self.x, self.h = x, rms_norm(self.layer.input_layernorm, x)
        self.q, self.k, self.v = (self.heads(self.h @ weight.T) for weight in (self.to_q, self.to_k, self.to_v))
        self.group = len(self.q) // len(self.k)
        self.rotated_q, self.rotated_k = rotated(self.q), rotated(self.k)
        future = np.triu(np.full((len(x), len(x)), -np.inf), 1)
        self.a = np.exp(self.rotated_q @ self.shared(self.rotated_k).transpose(0, 2, 1) / np.sqrt(self.size) + future)
        self.a /= self.a.sum(-1, keepdims=True)
        self.o = np.concatenate(list(self.a @ self.shared(self.v)), 1)
        self.y = self.o @ self.to_o.T
        self.x1 = x + self.y
        self.h1 = rms_norm(self.layer.post_attention_layernorm, self.x1)
        gate = self.h1 @ self.gate.T
        self.opened, self.wide = gate / (1 + np.exp(-gate)), self.h1 @ self.up.T
        self.f = (self.opened * self.wide) @ self.down.T
        return self.x1 + self.f

    def backward(self, r: Array) -> tuple[Array, Array]:
        skip, branch = slow.add(self.x1, self.f, r)
        skip, branch = slow.add(self.x, self.y, skip + self.of_feed_forward(branch))
        of_x, of_a = self.of_attention(branch)
        return skip + of_x, of_a

    def of_feed_forward(self, r: Array) -> Array:
        product = self.opened * self.wide
        r = slow.linear(product, self.down, r)
        half = product * np.vectorize(slow.sd)(r, product) / 2
        return slow.linear(self.h1, self.gate, half) + slow.linear(self.h1, self.up, half)

    def of_attention(self, r: Array) -> tuple[Array, Array]:
        """Return the relevance of the block's input and of A, [H, N, N]."""
        of_o = np.split(slow.linear(self.o, self.to_o, r), len(self.q), 1)
        of_q, of_k, of_v = np.zeros_like(self.q), np.zeros_like(self.k), np.zeros_like(self.v)
        of_a = np.zeros_like(self.a)
        for h in range(len(self.q)):
            kept = h // self.group
            of_a[h], value = slow.matmul(self.a[h], self.v[kept], of_o[h])
            of_q[h], key = slow.matmul(self.rotated_q[h], self.rotated_k[kept].T, of_a[h])
            of_v[kept] += value
            of_k[kept] += key.T
        of_h = np.zeros_like(self.h)
        straight = unrotated(self.q, of_q), unrotated(self.k, of_k), of_v
        for weight, of_heads in zip((self.to_q, self.to_k, self.to_v), straight, strict=True):
            of_h += slow.linear(self.h, weight, np.concatenate(list(of_heads), 1))
        return of_h, of_a

    def heads(self, x: Array) -> Array:
        """Return [H, N, d] of [N, H · d]."""
        return np.stack(np.split(x, x.shape[1] // self.size, 1))

    def shared(self, x: Array) -> Array:
        """Return keys or values for every head."""
        return x.repeat(self.group, 0)


def _terms(x: Array) -> tuple[Array, Array]:
    """Return the two terms of rotary positions (Su et al. 2021): pairs (i, i + d/2) turn by n · 10000^(−2i/d)."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(x.shape[1]), 10000.0 ** (-np.arange(half) / half))
    cos, sin = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)
    return x * cos, np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def rotated(x: Array) -> Array:
    one, other = _terms(x)
    return one + other


def unrotated(x: Array, r: Array) -> Array:
    """Return the relevance of x from that of its rotated values; the sum is that of all heads of the sample."""
    straight, crossed = slow.add(*_terms(x), r)
    half = x.shape[-1] // 2
    return straight + np.concatenate([crossed[..., half:], crossed[..., :half]], -1)
