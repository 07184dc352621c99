"""Padded batches of tokens, and subsets of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
