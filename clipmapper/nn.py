"""Building blocks of encoders and mappers: padded token batches, token subsets, attention, and key-value caches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from explain.capture.recording import active_recorder


@dataclass(frozen=True)
class Tokens:
    """A padded batch of token features of one modality."""

    #: Token features, [B, N, D].
    features: Tensor
    #: bool [B, N], false at padding.
    valid: Tensor
    #: Position of each token in the original input, [B, N]; it differs from 0..N-1 if tokens were removed.
    index: Tensor

    @property
    def last(self) -> Tensor:
        """Position of the last valid token of each sample, [B]; in a text this is the end token."""
        return last_valid(self.valid)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Tokens:
        """Return the tokens on a device; ``dtype`` converts the features only, on that device."""
        features = on_device(self.features, device).to(dtype=dtype)
        return Tokens(features, on_device(self.valid, device), on_device(self.index, device))

    def pin_memory(self) -> Tokens:
        """Return the tokens in pinned memory, from which a GPU copies them while it computes."""
        # Rows that share memory, as those of positions do, cannot be pinned.
        return Tokens(*(each.contiguous().pin_memory() for each in (self.features, self.valid, self.index)))


def on_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; the program does not wait for a copy from pinned memory to a GPU."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@dataclass(frozen=True)
class TokenSubset:
    """The kept tokens of a modality, in their original order.

    No token attends to a token that is not valid. The last valid token of a text is its end token. The caller must keep
    the class token of an image and the start token of a text (both at position 0), and the end token.
    """

    #: Positions of the kept tokens, [B, K].
    index: Tensor
    #: bool [B, K], false at padding.
    valid: Tensor

    @classmethod
    def from_mask(cls, keep: Tensor) -> TokenSubset:
        """Return the subset of the tokens at which ``keep``, bool [B, N], is true."""
        order = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        counts = keep.sum(1)
        longest = int(counts.max())
        return cls(order[:, :longest], torch.arange(longest, device=keep.device) < counts[:, None])

    @classmethod
    def all_of(cls, valid: Tensor) -> TokenSubset:
        """Return the subset of all tokens of a padded batch with mask ``valid`` [B, N]."""
        return cls(torch.arange(valid.shape[1], device=valid.device).expand_as(valid), valid)


def last_valid(valid: Tensor) -> Tensor:
    """Return the position of the last true value in each row: bool [B, N] → [B]."""
    return valid.cumsum(1).argmax(1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Select rows of ``x`` [B, N, D] by ``index`` [B, K] → [B, K, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute attention outputs [B, H, n_query, d] without returning the probabilities.

    Args:
        query: [B, H, n_query, d].
        key: [B, H, n_key, d].
        value: [B, H, n_key, d].
        mask: bool, broadcastable to [B, H, n_query, n_key], true where a query may attend to a key. Every query needs
            at least one key.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        # On a CPU the backward pass of the fused kernel can be slower; scripts/benchmark.py measures the ratio.
        return attention_probabilities(query, key, mask) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the attention probabilities A [B, H, n_query, n_key], whose rows sum to 1.

    The arguments are those of :func:`attention`.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split channels into heads: [B, N, D] → [B, H, N, D / H]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Join heads into channels: [B, H, N, d] → [B, N, H·d]."""
    return x.transpose(1, 2).flatten(-2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, out: nn.Module, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute multi-head attention from projected queries, keys and values, each [B, N, D].

    Args:
        query: [B, n_query, D].
        key: [B, n_key, D].
        value: [B, n_key, D].
        heads: Number of heads H.
        out: Output projection.
        mask: Mask of :func:`attention`.

    Returns:
        The output that the block adds to the residual stream, [B, n_query, D], and the attention probabilities A
        [B, H, n_query, n_key], which are None unless a recorder is active.
    """
    q, k, v = split_heads(query, heads), split_heads(key, heads), split_heads(value, heads)
    if active_recorder() is None:
        return out(merge_heads(attention(q, k, v, mask))), None
    probabilities = attention_probabilities(q, k, mask)
    return out(merge_heads(probabilities @ v)), probabilities


class KeyValues:
    """The key-value cache of one attention block."""

    def __init__(self, room: int):
        """Create an empty cache for the tokens of the first call of :meth:`extend` and ``room`` later tokens."""
        self._room = room
        self._length = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens, [B, n, D] each, and return those of all tokens so far.

        Tensors that earlier calls returned do not change.

        Raises:
            ValueError: The cache is full.
        """
        if self._kept is None:  # allocated once, because concatenating at every token would copy all tokens again
            places = keys.shape[1] + self._room
            self._kept = tuple(x.new_empty(len(x), places, x.shape[2]) for x in (keys, values))  # type: ignore[assignment]
        assert self._kept is not None
        start, end = self._length, self._length + keys.shape[1]
        if end > self._kept[0].shape[1]:
            raise ValueError(f"the cache has room for {self._kept[0].shape[1]} tokens, not for {end}")
        for kept, new in zip(self._kept, (keys, values), strict=True):
            kept[:, start:end] = new
        self._length = end
        return self._kept[0][:, :end], self._kept[1][:, :end]
