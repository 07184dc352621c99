"""What an explainer is: a rule that turns a trace into relevance."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from explain.relevance import Relevance, pick_rows
from explain.trace import AttentionTrace


class Explainer(ABC):
    """Subclasses give :meth:`matrix`, and :meth:`scores` where a row alone is cheaper.

    Padding: a padded token gets no relevance from a valid one, and its own row is the unit row of the token itself
    unless the explainer says otherwise.
    """

    needs: Sequence[str] = ()  #: the optional fields of the trace and its steps that must be there

    @abstractmethod
    def matrix(self, trace: AttentionTrace) -> Tensor:
        """R after the last step, [B, N, N]."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Row ``rows[b]`` of each sample's R, [B, N]."""
        return pick_rows(self.matrix(trace), rows)

    @overload
    def __call__(self, trace: AttentionTrace, rows: None = None) -> Relevance: ...

    @overload
    def __call__(self, trace: AttentionTrace, rows: Tensor) -> Tensor: ...

    def __call__(self, trace: AttentionTrace, rows: Tensor | None = None) -> Relevance | Tensor:
        """The whole map, or with ``rows`` (int [B], joint positions) the scores [B, N] of one row a sample.

        Raises:
            TraceError: the trace lacks a field that this explainer needs, or ``rows`` does not fit.
        """
        trace.require(*self.needs, by=type(self).__name__)
        with torch.no_grad():
            if rows is None:
                return Relevance(self.matrix(trace), trace.sizes)
            return self.scores(trace, trace.checked_rows(rows))
