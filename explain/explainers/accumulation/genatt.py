"""GenAtt: Chefer et al. 2021, Generic Attention-model Explainability (ICCV).

Equation numbers are those of Huang et al. 2023 (arXiv:2308.10240), appendix A.
"""

import torch
from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write
from explain.explainers.base.maps import normalise_rows, positive_evidence
from explain.trace import AttentionStep, AttentionTrace


class GenAtt(Accumulation):
    """Relevance that grows by A* = E_h[(∇A ⊙ A)⁺] (Eq. 27-34); rows are not normalised.

    Self-attention: R_ss += A*·R_ss and R_sq += A*·R_sq; joint attention: R += A*·R.
    Cross-attention: R_sq += norm(R_ss)ᵀ·A*·norm(R_qq) and R_ss += A*·R_qs, both from R as it was before the step, with
    norm(R) = I + rownorm(R − I), in which rows of zeros stay zero (the original divides 0 by 0 there).
    """

    needs = ("attention_grad",)
    linear_cross_attention = False

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """R[s] += A* · R[s] of a self- or joint attention (Eq. 29-30)."""
        evidence = positive_evidence(trace, step)
        return Update(trace.span(step.query), trace.span(step.key), evidence.new_ones(1, 1, 1), evidence)

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """R_sq and R_ss of a cross-attention (Eq. 31-34), all of R[s] of a self-attention."""
        if not step.is_cross:
            return super().writes(trace, step, relevance)
        s, q = trace.span(step.query), trace.span(step.key)
        evidence = positive_evidence(trace, step)
        across = _norm(relevance[:, s, s]).mT @ evidence @ _norm(relevance[:, q, q])
        back = evidence @ relevance[:, q, s]
        return [(s, q, relevance[:, s, q] + across), (s, s, relevance[:, s, s] + back)]


def _norm(relevance: Tensor) -> Tensor:
    """I + rownorm(R − I) (Eq. 33-34), [B, n, n]."""
    identity = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    return identity + normalise_rows(relevance - identity)
