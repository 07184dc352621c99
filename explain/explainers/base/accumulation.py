"""Accumulation of relevance over the attention steps: forwards as a matrix, or backwards as a single row."""

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
    """One update of the rows of modality s: R[s] ← keep · R[s] + mix · R[q].

    Huang et al. 2023, Eq. 4, 9, 10 and 11, all have this form.
    """

    query: slice  #: joint positions of modality s
    key: slice  #: joint positions of modality q
    keep: Tensor  #: weight of the old rows, [B, n_s, 1] or broadcastable to it
    mix: Tensor  #: weights of the rows of modality q, [B, n_s, n_q]

    def write(self, relevance: Tensor, columns: slice = ALL) -> Write:
        """Return the new rows of modality s in the given columns, computed from the present R, [B, N, N]."""
        kept = self.keep * relevance[:, self.query, columns]
        return self.query, columns, torch.baddbmm(kept, self.mix, relevance[:, self.key, columns])


def weighted_update(trace: AttentionTrace, step: AttentionStep, residual_weight: Tensor) -> Update:
    """Return the update w_X · R[s] + w_Y · Ā · R[q] with Ā = rownorm(A*) (Huang et al. 2023, Eq. 2-4 and 9-11).

    Every row of (w_X, w_Y · Ā) sums to 1. A token whose row of A* has no positive entry is treated as attending to
    itself, also in a cross-attention: its row of R does not change, because w_X + w_Y = 1. The rows of padded tokens do
    not change either. See docs/method.md, Weighted relevance.

    Args:
        trace: The trace that contains the step.
        step: The attention step.
        residual_weight: w_X, [B, n_s, 1] or broadcastable to it.
    """
    attention = normalise_rows(positive_evidence(trace, step))
    attends = attention.sum(-1, keepdim=True) > 0
    keep = torch.where(attends, residual_weight, residual_weight.new_ones(()))
    return Update(trace.span(step.query), trace.span(step.key), keep, attention.mul_(1 - keep))


class Accumulation(Explainer):
    """Base class of explainers that change R step by step, by an :class:`Update` each.

    Steps that run in parallel read R before any of them changes it. If every step is an update, R is a linear function
    of its start. One row of R can then be computed alone, by going from the last step back to the first: O(n²) per step
    instead of O(n³).
    """

    #: Whether a cross-attention is an :class:`Update`; if False, :meth:`writes` has a separate rule for it.
    linear_cross_attention = True

    def is_linear(self, trace: AttentionTrace) -> bool:
        """Return whether every step of the trace is an :class:`Update`."""
        return self.linear_cross_attention or not trace.has_cross_attention

    @abstractmethod
    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update of one step."""

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """Return the new values that the step writes, computed from R, [B, N, N], before the step's stage."""
        return [self.update(trace, step).write(relevance)]

    def advance(self, trace: AttentionTrace, stage: list[AttentionStep], relevance: Tensor) -> None:
        """Apply all steps of one stage to R, [B, N, N], in place."""
        writes = [write for step in stage for write in self.writes(trace, step, relevance)]
        for rows, columns, value in writes:
            relevance[:, rows, columns] = value

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R after the last step, [B, N, N]; it starts as the identity (Huang et al. 2023, Eq. 8)."""
        relevance = trace.identity()
        for stage in trace.stages():
            self.advance(trace, stage, relevance)
        return relevance

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Return one row of R per sample, [B, N].

        The row is computed alone, unless the trace has a cross-attention that is not linear.
        """
        if not self.is_linear(trace):
            return super().scores(trace, rows)
        scores = torch.zeros(trace.batch, trace.tokens, dtype=trace.dtype, device=trace.device)
        scores.scatter_(1, rows[:, None], 1)
        for stage in reversed(trace.stages()):
            scores = carry(scores, [self.update(trace, step) for step in stage])
        return scores


def carry(scores: Tensor, updates: list[Update]) -> Tensor:
    """Carry a row [B, N] back through one stage.

    The row holds weights of the tokens after the stage; the result holds weights of the tokens before it.
    """
    carried = scores.clone()
    for update in updates:
        carried[:, update.query] *= update.keep[:, :, 0]
    for update in updates:
        carried[:, update.key] += (scores[:, None, update.query] @ update.mix)[:, 0]
    return carried
