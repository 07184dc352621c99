"""Relevance accumulated step by step: forwards as a matrix, or backwards as one row.

Equation numbers are those of Huang et al. 2023 (arXiv:2308.10240).
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.explainers.base.maps import normalise_rows, positive_evidence
from explain.trace import AttentionStep, AttentionTrace

ALL = slice(None)
Write = tuple[slice, slice, Tensor]  # rows of R, columns of R, their new values


@dataclass(frozen=True, eq=False)
class Update:
    """R[s] ← keep · R[s] + mix · R[q]: the one form of Eq. 4, 9, 10 and 11."""

    query: slice  #: joint positions of modality s
    key: slice  #: joint positions of modality q
    keep: Tensor  #: [B, n_s, 1], or broadcasting to it
    mix: Tensor  #: [B, n_s, n_q]

    def write(self, relevance: Tensor, columns: slice = ALL) -> Write:
        """The new rows of modality s, in the given columns, from R [B, N, N] as it is."""
        kept = self.keep * relevance[:, self.query, columns]
        return self.query, columns, torch.baddbmm(kept, self.mix, relevance[:, self.key, columns])


def weighted_update(trace: AttentionTrace, step: AttentionStep, residual_weight: Tensor) -> Update:
    """w_X · R[s] + w_Y · Ā · R[q] with Ā = rownorm(A*) (Eq. 2-4, 9-11); every row of (w_X, w_Y Ā) sums to 1.

    A row of A* with no positive entry is taken to attend to itself, in a cross-attention too: it keeps
    w_X + w_Y = 1 of R[s]. So do the rows of padded tokens.

    Args:
        trace: The trace of the step.
        step: The step.
        residual_weight: w_X, [B, n_s, 1] or broadcasting to it.
    """
    attention = normalise_rows(positive_evidence(trace, step))
    attends = attention.sum(-1, keepdim=True) > 0
    keep = torch.where(attends, residual_weight, residual_weight.new_ones(()))
    return Update(trace.span(step.query), trace.span(step.key), keep, attention.mul_(1 - keep))


class Accumulation(Explainer):
    """Explainers whose R grows step by step by an :class:`Update`.

    Steps that ran side by side read R as it was before any of them wrote. Where every step is an update, R is linear
    in its start, and one row of it is carried from the last step back to the first: O(n²) a step instead of O(n³).
    """

    linear_cross_attention = True  #: False where cross-attentions follow a rule of their own, in :meth:`writes`

    def is_linear(self, trace: AttentionTrace) -> bool:
        """Whether every step of the trace is an update."""
        return self.linear_cross_attention or not trace.has_cross_attention

    @abstractmethod
    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """The step's update."""

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """What the step writes, from R [B, N, N] as it was before the step's stage."""
        return [self.update(trace, step).write(relevance)]

    def advance(self, trace: AttentionTrace, stage: list[AttentionStep], relevance: Tensor) -> None:
        """Take R [B, N, N], in place, through one stage."""
        writes = [write for step in stage for write in self.writes(trace, step, relevance)]
        for rows, columns, value in writes:
            relevance[:, rows, columns] = value

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """R after the last step, [B, N, N], from the identity (Eq. 8)."""
        relevance = trace.identity()
        for stage in trace.stages():
            self.advance(trace, stage, relevance)
        return relevance

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """One row a sample, [B, N]; carried as a vector unless a cross-attention is not linear."""
        if not self.is_linear(trace):
            return super().scores(trace, rows)
        scores = torch.zeros(trace.batch, trace.tokens, dtype=trace.dtype, device=trace.device)
        scores.scatter_(1, rows[:, None], 1)
        for stage in reversed(trace.stages()):
            scores = carry(scores, [self.update(trace, step) for step in stage])
        return scores


def carry(scores: Tensor, updates: list[Update]) -> Tensor:
    """Take a row [B, N] back through one stage: from shares of what it wrote to shares of what it read."""
    carried = scores.clone()
    for update in updates:
        carried[:, update.query] *= update.keep[:, :, 0]
    for update in updates:
        carried[:, update.key] += (scores[:, None, update.query] @ update.mix)[:, 0]
    return carried
