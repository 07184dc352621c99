"""How the tokens of two modalities bear on each other (Huang et al. 2023, arXiv:2308.10240, Eq. 16-19)."""

import torch
from torch import Tensor

from explain.explainers.accumulation.weighted import Weighted
from explain.explainers.base.accumulation import Accumulation
from explain.explainers.base.maps import positive_evidence
from explain.trace import JOINT, AttentionStep, AttentionTrace, TraceError


def interaction(trace: AttentionTrace, query: str, key: str, explainer: Accumulation | None = None) -> Tensor:
    """M_sq, the one-way interaction in which modality s = ``query`` attends to q = ``key``.

    M_sq starts at 0 (Eq. 16). Every step in which s attends to q, as a cross-attention or as a block of a joint
    attention, adds R_ssᵀ · A*_sq · R_qq, with R as it is before that step's own stage (Eq. 17) and A* not normalised,
    so that layers keep their different weight (Eq. 18).

    Args:
        trace: A trace with all that the explainer needs, and ``attention_grad``.
        query: Modality s.
        key: Modality q, another one.
        explainer: The rule by which R grows; :class:`~explain.explainers.Weighted` by default.

    Returns:
        [B, n_s, n_q]; 0 for padded tokens.

    Raises:
        TraceError: unknown or equal modalities, or the trace lacks a field.
    """
    explainer = Weighted() if explainer is None else explainer
    s, q = trace.span(query), trace.span(key)
    if query == key or JOINT in (query, key):
        raise TraceError(f"an interaction is between two different modalities, not {query!r} and {key!r}")
    trace.require("attention_grad", *explainer.needs, by="interaction")
    with torch.no_grad():
        relevance = trace.identity()
        total = relevance.new_zeros(relevance[:, s, q].shape)
        for stage in trace.stages():
            for step in stage:
                if (evidence := _evidence_between(trace, step, query, key)) is not None:
                    total += relevance[:, s, s].mT @ evidence @ relevance[:, q, q]
            explainer.advance(trace, stage, relevance)
    return total


def mutual_interaction(trace: AttentionTrace, query: str, key: str, explainer: Accumulation | None = None) -> Tensor:
    """M = M_sq ⊙ M_qsᵀ (Eq. 19), [B, n_s, n_q]; arguments and errors as in :func:`interaction`."""
    return interaction(trace, query, key, explainer) * interaction(trace, key, query, explainer).mT


def _evidence_between(trace: AttentionTrace, step: AttentionStep, query: str, key: str) -> Tensor | None:
    """A*_sq of a step, [B, n_s, n_q]; None where s does not attend to q in it."""
    if (step.query, step.key) == (query, key):
        return positive_evidence(trace, step)
    if step.query == JOINT:
        return positive_evidence(trace, step)[:, trace.span(query), trace.span(key)]
    return None
