"""Interaction between the tokens of two modalities (Huang et al. 2023, arXiv:2308.10240, Eq. 16-19)."""

import torch
from torch import Tensor

from explain.explainers.accumulation.weighted import Weighted
from explain.explainers.base.accumulation import Accumulation
from explain.explainers.base.maps import positive_evidence
from explain.trace import JOINT, AttentionStep, AttentionTrace, TokenMap, TraceError


def interaction(trace: AttentionTrace, query: str, key: str, explainer: Accumulation | None = None) -> Tensor:
    """Compute M_sq, the one-way interaction of modality s = ``query`` with modality q = ``key``, to which s attends.

    M_sq starts at 0 (Huang et al. 2023, Eq. 16). Every step in which s attends to q, either as a cross-attention or as
    a block of a joint attention, adds R_ssᵀ · A*_sq · R_qq, where R is the relevance map before the step's stage
    changes it (Huang et al. 2023, Eq. 17). A* is not normalised, so layers keep their different weights (Huang et al.
    2023, Eq. 18). See docs/method.md, Modality interaction.

    Args:
        trace: A trace with ``attention_grad`` and all fields that the explainer needs.
        query: Name of modality s.
        key: Name of modality q, which must differ from s.
        explainer: The rule that updates R; :class:`~explain.explainers.Weighted` by default.

    Returns:
        The interaction of the input tokens, [B, n_s, n_q]; 0 for padded tokens.

    Raises:
        TraceError: A modality is unknown, the two modalities are equal, or the trace lacks a field.
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
            for step in [] if isinstance(stage, TokenMap) else stage:
                if (evidence := _evidence_between(trace, step, query, key)) is not None:
                    layout = trace.layout(step)
                    of_s, of_q = relevance[:, layout.span(query), s], relevance[:, layout.span(key), q]
                    total += of_s.mT @ evidence @ of_q
            relevance = explainer.advance(trace, stage, relevance)
    return total


def mutual_interaction(trace: AttentionTrace, query: str, key: str, explainer: Accumulation | None = None) -> Tensor:
    """Compute the mutual interaction M = M_sq ⊙ M_qsᵀ, [B, n_s, n_q] (Huang et al. 2023, Eq. 19).

    Args:
        trace: A trace with ``attention_grad`` and all fields that the explainer needs.
        query: Name of modality s.
        key: Name of modality q, which must differ from s.
        explainer: The rule that updates R; :class:`~explain.explainers.Weighted` by default.

    Raises:
        TraceError: A modality is unknown, the two modalities are equal, or the trace lacks a field.
    """
    return interaction(trace, query, key, explainer) * interaction(trace, key, query, explainer).mT


def _evidence_between(trace: AttentionTrace, step: AttentionStep, query: str, key: str) -> Tensor | None:
    """Return A*_sq of a step, [B, n_s, n_q], or None if s does not attend to q in this step."""
    if (step.query, step.key) == (query, key):
        return positive_evidence(trace, step)
    if step.query == JOINT:
        layout = trace.layout(step)
        return positive_evidence(trace, step)[:, layout.span(query), layout.span(key)]
    return None
