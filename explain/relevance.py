"""The relevance map."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.trace import span


@dataclass(frozen=True, eq=False, repr=False)
class Relevance:
    """A relevance map R for each sample of a batch.

    Row i says how much each input token contributes to what token i holds after the last attention step.
    """

    matrix: Tensor  #: R, [B, N_rows, N]; rows and columns are in joint order; without token maps N_rows is N
    sizes: Mapping[str, int]  #: number of input tokens of each modality, the columns, in joint order
    row_sizes: Mapping[str, int] | None = None  #: number of tokens of each modality after token maps; None: ``sizes``

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} {modality}" for modality, size in self.sizes.items())
        return f"Relevance(matrix {list(self.matrix.shape)}; tokens: {sizes})"

    def block(self, query: str, key: str) -> Tensor:
        """Return the rows of one modality and the columns of another, [B, n_query, n_key].

        Raises:
            TraceError: The map has no such modality.
        """
        rows = self.sizes if self.row_sizes is None else self.row_sizes
        return self.matrix[:, span(rows, query), span(self.sizes, key)]

    def row(self, rows: Tensor) -> Tensor:
        """Return one row per sample, [B, N], chosen by the joint positions ``rows``, int [B].

        With weights of all rows, float [B, N_rows], it is their weighted sum.
        """
        return pick_rows(self.matrix, rows)


def pick_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Return row ``rows[b]`` of ``matrix[b]`` for each sample b: [B, N_rows, N] and [B] → [B, N].

    With weights of all rows, float [B, N_rows], return their weighted sum.
    """
    if rows.is_floating_point():
        return (rows.to(matrix)[:, None] @ matrix)[:, 0]
    return matrix[torch.arange(len(matrix), device=matrix.device), rows.to(matrix.device)]
