"""The tokens that a model holds at one moment of its forward pass: how many each modality has, and which are valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from explain.step import span


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of R at one moment; the columns of R are always the input tokens, ``AttentionTrace.sizes``."""

    sizes: Mapping[str, int]  #: number of tokens of each modality, in joint order
    valid: Tensor | None  #: bool [B, N] in joint order, False for padding; None means no padding

    @property
    def tokens(self) -> int:
        """Number of tokens of all modalities."""
        return sum(self.sizes.values())

    def span(self, modality: str) -> slice:
        """Return the joint positions of a modality's tokens.

        Raises:
            TraceError: There is no such modality.
        """
        return span(self.sizes, modality)

    def valid_tokens(self, modality: str) -> Tensor | None:
        """Return the valid tokens of one modality, bool [B, n], or None if there is no padding."""
        return None if self.valid is None else self.valid[:, self.span(modality)]
