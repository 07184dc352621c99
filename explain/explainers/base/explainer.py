"""The base class of explainers, which turn a trace into relevance."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self, overload

import torch
from torch import Tensor

from explain.relevance import Relevance, pick_rows
from explain.trace import AttentionTrace

Precision = Literal["auto", "float64", "model"]  #: of the pass that computes LRP relevance


class Passes(NamedTuple):
    """Number of forward and backward passes through the model for one explanation."""

    forward: int
    backward: int


class Explainer(ABC):
    """Base class of explainers.

    Subclasses implement :meth:`matrix`, and override :meth:`scores` if a single row is cheaper to compute. Class
    attributes describe what an explainer reads and what it costs; callers should use these attributes instead of
    testing its type.

    A padded token gets no relevance from a valid token. The row of a padded token is 1 at the token itself and 0
    elsewhere, unless the explainer documents something else.
    """

    needs: Sequence[str] = ()  #: names of the optional fields of traces and steps that it reads
    last_only: bool = False  #: whether it reads only the last steps (``AttentionTrace.last_steps``)
    partners: int = 0  #: largest number of samples of other images whose weights it uses for a sample
    modalities: Sequence[str] = ("image", "text")  #: modalities whose tokens it scores; all other tokens score 0
    control: bool = False  #: whether it is a control, which a good explainer must surpass
    seeded: bool = False  #: whether its scores are random and depend on ``seed``
    seed: int = 0  #: seed of random scores
    #: Precision of the LRP pass, if it reads ``attention_relevance``: ``model`` is that of the model, ``auto`` is
    #: float64 for models of less than 1 GB.
    precision: Precision = "auto"

    @abstractmethod
    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R after the last step, [B, N_rows, N]: N input tokens, and N_rows tokens after all token maps."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Return row ``rows[b]`` of each sample's R, or a weighted sum of its rows, [B, N]."""
        return pick_rows(self.matrix(trace), rows)

    @property
    def passes(self) -> Passes:
        """Passes through the model for one explanation, including those that record the trace.

        One pass serves the whole batch. There is one forward pass, and one backward pass if gradients are read. LRP
        relevance needs one more pass of each kind.
        """
        lrp = "attention_relevance" in self.needs
        gradients = any(field.endswith("_grad") for field in self.needs)
        return Passes(1 + lrp, gradients + lrp)

    def with_seed(self, seed: int) -> Self:
        """Return a copy of the explainer with a different seed; useful only if ``seeded``."""
        other = copy.copy(self)
        other.seed = seed
        return other

    @overload
    def __call__(self, trace: AttentionTrace, rows: None = None) -> Relevance: ...

    @overload
    def __call__(self, trace: AttentionTrace, rows: Tensor) -> Tensor: ...

    def __call__(self, trace: AttentionTrace, rows: Tensor | None = None) -> Relevance | Tensor:
        """Return the whole relevance map, or one row of it per sample.

        Args:
            trace: The trace to explain.
            rows: Joint position of the row to return for each sample, int [B]; or weights of all rows, float
                [B, N_rows], whose weighted sum is returned; None returns the whole map.

        Returns:
            The map, or the scores [B, N] if ``rows`` is given.

        Raises:
            TraceError: The trace lacks a field that the explainer needs, or ``rows`` does not fit.
        """
        trace.require(*self.needs, by=type(self).__name__, last_only=self.last_only)
        with torch.no_grad():
            if rows is None:
                return Relevance(self.matrix(trace), trace.sizes, trace.final.sizes)
            return self.scores(trace, trace.checked_rows(rows))
