"""Attention rollout (Abnar and Zuidema 2020), with the cross-modal scores of Chefer et al. 2021.

Equation numbers are those of Huang et al. 2023 (arXiv:2308.10240), appendix A.
"""

from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write
from explain.explainers.base.maps import mean_attention
from explain.trace import AttentionStep, AttentionTrace


class Rollout(Accumulation):
    """The product of rownorm(E_h[A] + I) over the self-attentions (Eq. 24-25); gradients play no part.

    A cross-attention sets R_sq = R_ssᵀ · E_h[A] · R_qq from R as it is at that step (Eq. 26), so the last one counts;
    in a trace with cross-attentions a self-attention changes R_ss only. Joint attention multiplies all of R.
    """

    linear_cross_attention = False

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """rownorm(E_h[A] + I) of a self- or joint attention, the identity's share apart."""
        attention = mean_attention(trace, step)
        keep = 1 / (1 + attention.sum(-1, keepdim=True))
        return Update(trace.span(step.query), trace.span(step.key), keep, attention.mul_(keep))

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """R_sq of a cross-attention, R_ss of a self-attention."""
        if self.is_linear(trace):
            return super().writes(trace, step, relevance)
        s, q = trace.span(step.query), trace.span(step.key)
        if step.is_cross:
            return [(s, q, relevance[:, s, s].mT @ mean_attention(trace, step) @ relevance[:, q, q])]
        return [self.update(trace, step).write(relevance, columns=s)]
