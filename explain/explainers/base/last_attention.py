"""Base class of explainers that read only the last attention of each kind."""

from abc import abstractmethod

from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.explainers.base.maps import zero_padding
from explain.trace import AttentionStep, AttentionTrace


class LastAttention(Explainer):
    """Base class of explainers that accumulate nothing: R_sq is a map of the last step in which s attends to q.

    This includes self-attention (s = q). A joint attention sets all of R and replaces all earlier steps. If s never
    attends to q, R_sq keeps its start value: I for s = q, else 0.
    """

    last_only = True

    @abstractmethod
    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """Return one map for the step's heads together, [B, n_s, n_q]; entries at padding are ignored."""

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R, [B, N, N], whose blocks are the maps of the last steps."""
        relevance = trace.identity()
        for step in trace.last_steps():
            attention = zero_padding(trace, step, self.attention_map(trace, step))
            relevance[:, trace.span(step.query), trace.span(step.key)] = attention
        if trace.valid is not None:
            relevance = relevance.where(trace.valid[:, :, None], trace.identity())
        return relevance
