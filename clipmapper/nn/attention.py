"""The one attention function of the project, for encoders and mappers alike.

Two paths, equal to rounding: scaled-dot-product attention, which never writes the probabilities down, and the explicit
softmax, whose probabilities are part of the autograd graph. Recording (``explain.capture.recording``) takes the second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explain.capture.recording import active_recorder


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention outputs [B, H, n_query, d], without the probabilities.

    ``query`` is [B, H, n_query, d], ``key`` and ``value`` [B, H, n_key, d]; ``mask`` is bool, broadcastable to
    [B, H, n_query, n_key], true where a query may attend, and leaves every query at least one key.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        # The fused kernel's backward pass can be the slower one on a CPU: scripts/benchmark.py measures the ratio.
        return attention_probabilities(query, key, mask) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """The probabilities A, [B, H, n_query, n_key], rows sum to 1; masks as in :func:`attention`."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, D] → [B, H, N, D / H]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, N, d] → [B, N, H·d]."""
    return x.transpose(1, 2).flatten(-2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, out: nn.Module, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention over projected [B, N, D] tensors: what the block adds, [B, n_query, D], and A.

    A is None unless a recording is under way.
    """
    q, k, v = split_heads(query, heads), split_heads(key, heads), split_heads(value, heads)
    if active_recorder() is None:
        return out(merge_heads(attention(q, k, v, mask))), None
    probabilities = attention_probabilities(q, k, mask)
    return out(merge_heads(probabilities @ v)), probabilities
