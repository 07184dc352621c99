"""Token maps: steps of a trace for models that drop, merge, pool, tile or query tokens between attention steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explain.layout import Layout
from explain.step import JOINT, TraceError, check_shape


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TokenMap:
    """A step that replaces the tokens of one modality: R[new] ← M · R[old]. The columns of R stay the input tokens.

    Dropping, reordering and tiling are matrices of zeros and ones; pooling and merging have the weights of their means.
    See docs/method.md, Token maps.
    """

    modality: str  #: the modality whose tokens are replaced
    weights: Tensor  #: M [B, n_new, n_old], non-negative; the rows of valid new tokens sum to 1
    source: str | None = None  #: modality of the old tokens; None means ``modality``
    valid: Tensor | None = None  #: bool [B, n_new], False for padding; None means no padding

    def __repr__(self) -> str:
        return f"TokenMap({self.modality} from {self.key}: weights {list(self.weights.shape)})"

    @property
    def query(self) -> str:
        """The modality whose tokens are replaced."""
        return self.modality

    @property
    def key(self) -> str:
        """Modality of the old tokens."""
        return self.modality if self.source is None else self.source

    def check(self, label: str, batch: int, layout: Layout) -> None:
        """Raise :class:`TraceError` if the map does not fit the tokens before it, or is not a map of means.

        Args:
            label: The map's name in error messages.
            batch: B, the expected number of samples.
            layout: The tokens before the map.
        """
        if JOINT in (self.modality, self.key):
            raise TraceError(f"{label}: a token map replaces the tokens of one modality, not {JOINT!r}")
        try:
            old = layout.span(self.key)
            layout.span(self.modality)
        except TraceError as error:
            raise TraceError(f"{label}: {error}") from None
        check_shape(f"{label}: weights", self.weights, (batch, "n", old.stop - old.start))
        weights = self.weights
        if self.valid is not None:
            check_shape(f"{label}: valid", self.valid, (batch, weights.shape[1]))
            weights = weights.where(self.valid[:, :, None], 0)
        total = weights.sum(-1)
        expected = torch.ones_like(total) if self.valid is None else self.valid.to(total)
        if bool((weights < 0).any()) or not torch.allclose(total, expected, rtol=0, atol=1e-3):
            raise TraceError(f"{label}: the rows of weights must be non-negative and sum to 1")
        present = layout.valid_tokens(self.key)
        if present is not None and bool((weights.sum(1)[~present] != 0).any()):
            raise TraceError(f"{label}: a valid token is made of a padded token")

    def after(self, layout: Layout) -> Layout:
        """Return the tokens after the map, from those before it."""
        sizes = {**layout.sizes, self.modality: self.weights.shape[1]}
        if layout.valid is None and self.valid is None:
            return Layout(sizes, None)
        parts = []
        for modality, size in layout.sizes.items():
            here = self.valid if modality == self.modality else layout.valid_tokens(modality)
            size = self.weights.shape[1] if modality == self.modality else size
            parts.append(here if here is not None else self.weights.new_ones(len(self.weights), size, dtype=torch.bool))
        return Layout(sizes, torch.cat(parts, 1))

    def carry(self, relevance: Tensor, layout: Layout) -> Tensor:
        """Return R after the map, [B, N_new, N], from R before it, [B, N_old, N]. Rows of padded new tokens are 0."""
        new = self._weights(relevance.dtype) @ relevance[:, layout.span(self.key)]
        parts = [new if m == self.modality else relevance[:, layout.span(m)] for m in layout.sizes]
        return torch.cat(parts, 1)

    def carry_back(self, scores: Tensor, layout: Layout) -> Tensor:
        """Return a row of weights of the tokens before the map, [B, N_old], from one of those after it, [B, N_new]."""
        after = self.after(layout)
        parts = {m: scores[:, after.span(m)] for m in layout.sizes}
        handed = (parts[self.modality][:, None] @ self._weights(scores.dtype))[:, 0]
        parts[self.modality] = scores.new_zeros(len(scores), layout.sizes[self.modality])
        parts[self.key] = parts[self.key] + handed
        return torch.cat(list(parts.values()), 1)

    def _weights(self, dtype: torch.dtype) -> Tensor:
        weights = self.weights.to(dtype)
        return weights if self.valid is None else weights.where(self.valid[:, :, None], 0)
