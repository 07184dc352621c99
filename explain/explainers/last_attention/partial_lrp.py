"""Partial LRP (Voita et al. 2019): layer-wise relevance propagation down to the last attention."""

from torch import Tensor

from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class PartialLRP(LastAttention):
    """E_h[Rel_A] of the last attention of each kind, Rel_A the LRP relevance of A; scores may be negative.

    The reference code then rescales to 0..1, which leaves the order of the tokens as it is; here nothing is rescaled.
    """

    needs = ("attention_relevance",)

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """E_h[Rel_A]."""
        return step.tensor("attention_relevance").mean(1, dtype=trace.dtype)
