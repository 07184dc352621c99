"""LRP through CLIP, ViLT and LXMERT for one sample, with the loops of ``lrp_reference``: Rel_A of every step."""

from __future__ import annotations

from typing import Any

import lrp_reference as slow
import numpy as np
from lrp_reference import Array, Attention, FeedForward, Layer, PostNorm


def clip(model: Any, image: Array, text: Array, end: int) -> list[Array]:
    """Return Rel_A of the image's blocks, then the text's; ``image`` and ``text`` [n, D] enter the first blocks."""
    sentence = getattr(model, "text", model)
    towers = [
        (model.visual.transformer, image, 0, model.visual.ln_post, slow.vector(model.visual.proj).T, None),
        (sentence.transformer, text, end, sentence.ln_final, slow.vector(sentence.text_projection).T, True),
    ]
    found, embeddings, states = [], [], []
    for transformer, x, place, last_norm, projection, causal in towers:
        mask = slow.vector(sentence.attn_mask.double()) if causal else None
        layers = [_clip_layer(block, mask) for block in transformer.resblocks]
        for layer in layers:
            x = layer.forward(x)
        read = slow.norm(last_norm, x[place : place + 1])
        embedding = read @ projection.T
        embeddings.append(embedding / np.sqrt((embedding**2).sum()))
        states.append((layers, x, place, read, projection))
    of_image, of_text = slow.matmul(embeddings[0], embeddings[1].T, np.ones((1, 1)))
    for (layers, x, place, read, projection), r in zip(states, (of_image, of_text.T), strict=True):
        of_x = np.zeros_like(x)
        of_x[place] = slow.linear(read, projection, r)[0]
        found += slow.backward(layers, of_x)
    return found


def _clip_layer(block: Any, mask: Array | None) -> Layer:
    attn = block.attn
    weights = np.split(slow.vector(attn.in_proj_weight), 3)
    biases = np.split(slow.vector(attn.in_proj_bias), 3)
    parts = [*zip(weights, biases, strict=True), slow.pair(attn.out_proj)]
    scales = [slow.vector(scale.gamma) if hasattr(scale, "gamma") else np.ones(1) for scale in (block.ls_1, block.ls_2)]
    attention = Attention(parts, attn.num_heads, mask)
    return Layer((block.ln_1, block.ln_2), attention, FeedForward(block.mlp.c_fc, block.mlp.c_proj), scales)


def vilt(model: Any, x: Array, answer: int) -> list[Array]:
    """Return Rel_A of every layer; ``x`` [N, D] is the input of the first layer."""
    layers = [_vilt_layer(layer) for layer in model.vilt.encoder.layer]
    for layer in layers:
        x = layer.forward(x)
    r = np.zeros_like(x)
    first = slow.norm(model.vilt.layernorm, x[:1])
    inner, inner_norm, _, outer = model.classifier
    r[0] = _pooled(model.vilt.pooler.dense, first, inner, inner_norm, outer, answer)[0]
    return slow.backward(layers, r)


def _vilt_layer(layer: Any) -> Layer:
    attention = _attention(layer.attention.attention, layer.attention.output)
    feed_forward = FeedForward(layer.intermediate.dense, layer.output.dense)
    return Layer((layer.layernorm_before, layer.layernorm_after), attention, feed_forward)


def _attention(own: Any, output: Any) -> Attention:
    return Attention(
        [slow.pair(part) for part in (own.query, own.key, own.value, output.dense)], own.num_attention_heads
    )


def _pooled(
    dense: Any, first: Array, inner: Any, inner_norm: Any, outer: Any, answer: int, late: bool = False
) -> Array:
    """Return the relevance of the read-out token for one logit, through a pooler (tanh) and a head of two layers.

    The head's norm comes before its GELU, or after it if ``late``.
    """
    pooled = np.tanh(slow.affine(dense, first))
    hidden = slow.affine(inner, pooled)
    hidden = slow.norm(inner_norm, slow.gelu(hidden)) if late else slow.gelu(slow.norm(inner_norm, hidden))
    r = slow.linear(hidden, slow.matrix(outer), slow.one_hot(outer.out_features, answer))
    return slow.linear(first, slow.matrix(dense), slow.linear(pooled, slow.matrix(inner), r))


class _SelfAttentionLayer:
    """Post-norm self-attention, and the feed-forward block after it in the same modality."""

    def __init__(self, attention: Any, inner: Any, outer: Any) -> None:
        self.one = PostNorm(attention.output.LayerNorm, _attention(attention.self, attention.output))
        self.two = PostNorm(outer.LayerNorm, FeedForward(inner.dense, outer.dense))

    def forward(self, x: Array) -> Array:
        self.middle = self.one.forward(x, x)
        return self.two.forward(self.middle)

    def backward(self, r: Array) -> tuple[Array, Array]:
        skip, (relevances, of_a) = self.one.backward(slow.clone(self.middle, *self.two.backward(r)))
        return slow.clone(self.one.x, skip, *relevances), of_a


def lxmert(model: Any, text: Array, image: Array, answer: int) -> list[Array]:
    """Return Rel_A of every step in the adapter's order; ``text`` and ``image`` [n, D] are the first layers' inputs."""
    encoder, inner = model.lxmert.encoder, model.answer_head.logit_fc
    stacks = [
        [_SelfAttentionLayer(layer.attention, layer.intermediate, layer.output) for layer in stack]
        for stack in (encoder.layer, encoder.r_layers)
    ]
    for layer in stacks[0]:
        text = layer.forward(text)
    for layer in stacks[1]:
        image = layer.forward(image)
    crossings = []
    for layer in encoder.x_layers:
        text, image = _cross(layer, crossings, text, image)
    of_text, of_image = np.zeros_like(text), np.zeros_like(image)
    of_text[0] = _pooled(model.lxmert.pooler.dense, text[:1], inner[0], inner[2], inner[3], answer, late=True)[0]
    found: list[Array] = []
    for crossing in reversed(crossings):
        of_text, of_image, maps = _uncross(*crossing, of_text, of_image)
        found = maps + found
    for stack, r in ((stacks[1], of_image), (stacks[0], of_text)):
        maps = []
        for layer in reversed(stack):
            r, of_a = layer.backward(r)
            maps.insert(0, of_a)
        found = maps + found
    return found


def _cross(layer: Any, crossings: list[Any], text: Array, image: Array) -> tuple[Array, Array]:
    block = layer.visual_attention
    both = [PostNorm(block.output.LayerNorm, _attention(block.att, block.output)) for _ in range(2)]
    selves = [
        _SelfAttentionLayer(layer.lang_self_att, layer.lang_inter, layer.lang_output),
        _SelfAttentionLayer(layer.visn_self_att, layer.visn_inter, layer.visn_output),
    ]
    crossings.append((both, selves, text, image))
    crossed = both[0].forward(text, image), both[1].forward(image, text)
    return selves[0].forward(crossed[0]), selves[1].forward(crossed[1])


def _uncross(
    both: list[PostNorm], selves: list[_SelfAttentionLayer], text: Array, image: Array, of_text: Array, of_image: Array
) -> tuple[Array, Array, list[Array]]:
    of_text, text_map = selves[0].backward(of_text)
    of_image, image_map = selves[1].backward(of_image)
    text_skip, ((text_q, image_k, image_v), to_image) = both[0].backward(of_text)
    image_skip, ((image_q, text_k, text_v), to_text) = both[1].backward(of_image)
    of_text = slow.clone(text, text_skip, text_q, text_k, text_v)
    of_image = slow.clone(image, image_skip, image_q, image_k, image_v)
    return of_text, of_image, [to_image, to_text, text_map, image_map]
