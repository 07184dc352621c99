"""What encoders and mappers are built of: padded token batches, attention, and kept keys and values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explain.capture.recording import active_recorder


@dataclass(frozen=True)
class Tokens:
    """Token features of one modality: ``features`` [B, N, D]; ``valid`` bool [B, N], false at padding.

    ``index`` [B, N] is each token's place in the untouched input; it differs from 0..N-1 where tokens were left out.
    """

    features: Tensor
    valid: Tensor
    index: Tensor

    @property
    def last(self) -> Tensor:
        """The place of the last valid token of each sample, [B] (of a text: its end token)."""
        return last_valid(self.valid)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Tokens:
        features = self.features.to(device=device, dtype=dtype)
        return Tokens(features, self.valid.to(device), self.index.to(device))


@dataclass(frozen=True)
class TokenSubset:
    """Which tokens of a modality stay, in their order: ``index`` [B, K] places, ``valid`` bool [B, K].

    Nothing attends to a token that is not valid; the last valid one counts as a text's end. The class token (0), the
    start token (0) and the end token are the caller's to keep.
    """

    index: Tensor
    valid: Tensor

    @classmethod
    def from_mask(cls, keep: Tensor) -> TokenSubset:
        """From bool [B, N], true at the tokens that stay."""
        order = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        counts = keep.sum(1)
        longest = int(counts.max())
        return cls(order[:, :longest], torch.arange(longest, device=keep.device) < counts[:, None])

    @classmethod
    def all_of(cls, valid: Tensor) -> TokenSubset:
        """Every token of a padded batch with mask ``valid`` [B, N]."""
        return cls(torch.arange(valid.shape[1], device=valid.device).expand_as(valid), valid)


def last_valid(valid: Tensor) -> Tensor:
    """The place of each row's last true value: bool [B, N] → [B]."""
    return valid.cumsum(1).argmax(1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, N, D] by ``index`` [B, K] → [B, K, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


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


class KeyValues:
    """What one attention keeps of the tokens seen so far; ``room`` is how many may follow the first ones."""

    def __init__(self, room: int):
        self._room = room
        self._length = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens, [B, n, D] each, and returns those of all so far; raises ``ValueError`` where there is no room.

        What was returned before stays as it was.
        """
        if self._kept is None:  # one allocation: joining tensors at every token would copy all of them each time
            places = keys.shape[1] + self._room
            self._kept = tuple(x.new_empty(len(x), places, x.shape[2]) for x in (keys, values))  # type: ignore[assignment]
        assert self._kept is not None
        start, end = self._length, self._length + keys.shape[1]
        if end > self._kept[0].shape[1]:
            raise ValueError(f"room for {self._kept[0].shape[1]} tokens, not for {end}")
        for kept, new in zip(self._kept, (keys, values), strict=True):
            kept[:, start:end] = new
        self._length = end
        return self._kept[0][:, :end], self._kept[1][:, :end]
