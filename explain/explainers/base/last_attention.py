"""Explainers that look at the last attention of each kind and accumulate nothing."""

from abc import abstractmethod

from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.explainers.base.maps import zero_padding
from explain.trace import AttentionStep, AttentionTrace


class LastAttention(Explainer):
    """R_sq is the map of the last step in which s attends to q, self-attention included; one update each.

    A joint attention sets all of R and overrides all earlier steps. Where s never attends to q, R_sq stays as it
    starts: I for s = q, else 0.
    """

    last_only = True

    @abstractmethod
    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """The step's map over its heads, [B, n_s, n_q]; what it says of padding is dropped."""

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """The last maps in their blocks, [B, N, N]."""
        relevance = trace.identity()
        for step in trace.last_steps():
            attention = zero_padding(trace, step, self.attention_map(trace, step))
            relevance[:, trace.span(step.query), trace.span(step.key)] = attention
        if trace.valid is not None:
            relevance = relevance.where(trace.valid[:, :, None], trace.identity())
        return relevance
