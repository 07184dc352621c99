"""Accumulation of relevance over the attention steps: forwards as a matrix, or backwards as a single row."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.explainers.base.maps import normalise_rows, positive_evidence
from explain.trace import AttentionStep, AttentionTrace, Stage, TokenMap

ALL = slice(None)
Write = tuple[slice, slice, Tensor]  # rows of R, columns of R, their new values


@dataclass(frozen=True, eq=False)
class Update:
    """One update of the rows of modality s: R[s] ← keep · R[s] + mix · R[q].

    Huang et al. 2023, Eq. 4, 9, 10 and 11, all have this form.
    """

    query: slice  #: rows of modality s (``AttentionTrace.layout``)
    key: slice  #: rows of modality q
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
    layout = trace.layout(step)
    return Update(layout.span(step.query), layout.span(step.key), keep, attention.mul_(1 - keep))


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

    def advance(self, trace: AttentionTrace, stage: Stage, relevance: Tensor) -> Tensor:
        """Return R after all steps of one stage, [B, N_rows, N]; attention steps change R in place."""
        if isinstance(stage, TokenMap):
            return stage.carry(relevance, trace.layout(stage))
        writes = [write for step in stage for write in self.writes(trace, step, relevance)]
        for rows, columns, value in writes:
            relevance[:, rows, columns] = value
        return relevance

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R after the last step, [B, N_rows, N]; it starts as the identity (Huang et al. 2023, Eq. 8)."""
        relevance = trace.identity()
        for stage in trace.stages():
            relevance = self.advance(trace, stage, relevance)
        return relevance

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Return one row of R per sample, [B, N].

        The row is computed alone, unless the trace has a cross-attention that is not linear.
        """
        if not self.is_linear(trace):
            return super().scores(trace, rows)
        scores = rows
        if not rows.is_floating_point():
            scores = torch.zeros(trace.batch, trace.final.tokens, dtype=trace.dtype, device=trace.device)
            scores.scatter_(1, rows[:, None], 1)
        for stage in reversed(trace.stages()):
            if isinstance(stage, TokenMap):
                scores = stage.carry_back(scores, trace.layout(stage))
            else:
                scores = carry(scores, [self.update(trace, step) for step in stage])
        return scores


def input_rows(trace: AttentionTrace, step: AttentionStep, values: Tensor) -> Tensor:
    """Return values of the input tokens of modality s, [B, n_s_input, n], as rows of the tokens before the step.

    A token that a token map made of several input tokens gets their weighted mean. Without token maps, these are the
    values themselves.
    """
    mapped = trace.mapped(step)
    if mapped is None:
        return values
    return mapped[:, trace.layout(step).span(step.query), trace.span(step.query)] @ values


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
