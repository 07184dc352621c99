"""The relevance map."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.trace import span


@dataclass(frozen=True, eq=False, repr=False)
class Relevance:
    """R, where row i says how much each input token contributes to what token i holds after the last step."""

    matrix: Tensor  #: [B, N, N], rows and columns in joint order
    sizes: Mapping[str, int]  #: tokens of each modality, in joint order

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} {modality}" for modality, size in self.sizes.items())
        return f"Relevance(matrix {list(self.matrix.shape)}; tokens: {sizes})"

    def block(self, query: str, key: str) -> Tensor:
        """The rows of one modality and the columns of another, [B, n_query, n_key].

        Raises:
            TraceError: no such modality.
        """
        return self.matrix[:, span(self.sizes, query), span(self.sizes, key)]

    def row(self, rows: Tensor) -> Tensor:
        """One row a sample: ``rows`` int [B] → scores [B, N]."""
        return pick_rows(self.matrix, rows)


def pick_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Row ``rows[b]`` of ``matrix[b]``: [B, N, N], [B] → [B, N]."""
    return matrix[torch.arange(len(matrix), device=matrix.device), rows.to(matrix.device)]
