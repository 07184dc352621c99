"""What an explainer is: a rule that turns a trace into relevance."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self, overload

import torch
from torch import Tensor

from explain.relevance import Relevance, pick_rows
from explain.trace import AttentionTrace


class Passes(NamedTuple):
    """How often an explanation runs the model."""

    forward: int
    backward: int


class Explainer(ABC):
    """Subclasses give :meth:`matrix`, and :meth:`scores` where a row alone is cheaper.

    What an explainer reads and costs stands on its class; whoever runs it asks these attributes, never its type.

    Padding: a padded token gets no relevance from a valid one, and its own row is the unit row of the token itself
    unless the explainer says otherwise.
    """

    needs: Sequence[str] = ()  #: the optional fields of the trace and its steps that must be there
    last_only: bool = False  #: no step but the last attention of each kind is read (``AttentionTrace.last_steps``)
    min_batch: int = 1  #: fewer samples than this are refused
    seeded: bool = False  #: scores are drawn at random, by ``seed``
    seed: int = 0

    @abstractmethod
    def matrix(self, trace: AttentionTrace) -> Tensor:
        """R after the last step, [B, N, N]."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Row ``rows[b]`` of each sample's R, [B, N]."""
        return pick_rows(self.matrix(trace), rows)

    @property
    def passes(self) -> Passes:
        """Passes through the model for one explanation, the trace included; a pass serves the whole batch.

        One forward pass, one backward pass if gradients are read, and one of each more for LRP relevance.
        """
        lrp = "attention_relevance" in self.needs
        gradients = any(field.endswith("_grad") for field in self.needs)
        return Passes(1 + lrp, gradients + lrp)

    def with_seed(self, seed: int) -> Self:
        """The explainer that draws by another seed; only where ``seeded``."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @overload
    def __call__(self, trace: AttentionTrace, rows: None = None) -> Relevance: ...

    @overload
    def __call__(self, trace: AttentionTrace, rows: Tensor) -> Tensor: ...

    def __call__(self, trace: AttentionTrace, rows: Tensor | None = None) -> Relevance | Tensor:
        """The whole map, or with ``rows`` (int [B], joint positions) the scores [B, N] of one row a sample.

        Raises:
            TraceError: the trace lacks a field that this explainer needs, or ``rows`` does not fit.
        """
        trace.require(*self.needs, by=type(self).__name__, last_only=self.last_only)
        with torch.no_grad():
            if rows is None:
                return Relevance(self.matrix(trace), trace.sizes)
            return self.scores(trace, trace.checked_rows(rows))
