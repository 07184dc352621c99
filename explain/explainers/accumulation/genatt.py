"""GenAtt (Chefer et al. 2021, Generic Attention-model Explainability, ICCV)."""

import torch
from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write, input_rows
from explain.explainers.base.maps import normalise_rows, positive_evidence
from explain.trace import AttentionStep, AttentionTrace, read_through


class GenAtt(Accumulation):
    """GenAtt (Chefer et al. 2021), as written in Huang et al. 2023, appendix A, Eq. 27-34.

    Relevance grows by A* = E_h[(∇A ⊙ A)⁺], and rows of R are not normalised:

    - Self-attention: R_ss += A* · R_ss and R_sq += A* · R_sq.
    - Joint attention: R += A* · R.
    - Cross-attention: R_sq += norm(R_ss)ᵀ · A* · norm(R_qq) and R_ss += A* · R_qs. Both read R before the step changes
      it. norm(R) = I + rownorm(R − I), where rows of zeros stay zero (the original code divides 0 by 0 there). For a
      modality t that s reads only through q, R_st += norm(R_ss)ᵀ · A* · R_qt.

    See docs/method.md, Baselines.
    """

    needs = ("attention_grad",)
    linear_cross_attention = False

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update R[s] += A* · R[s] of a self- or joint attention (Huang et al. 2023, Eq. 27-34)."""
        evidence = positive_evidence(trace, step)
        layout = trace.layout(step)
        return Update(layout.span(step.query), layout.span(step.key), evidence.new_ones(1, 1, 1), evidence)

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """Return the new values of R that the step writes.

        A cross-attention writes R_sq and R_ss (Huang et al. 2023, Eq. 27-34); a self- or joint attention writes all of
        R[s].
        """
        if not step.is_cross:
            return super().writes(trace, step, relevance)
        layout = trace.layout(step)
        s, q = layout.span(step.query), layout.span(step.key)  # rows
        of_s, of_q = trace.span(step.query), trace.span(step.key)  # columns
        evidence = positive_evidence(trace, step)
        across = _norm(trace, step, step.query, relevance).mT @ evidence
        read = [(of_q, _norm(trace, step, step.key, relevance))]
        read += [(of, relevance[:, q, of]) for of in map(trace.span, read_through(trace.steps, step))]
        added = [(of, input_rows(trace, step, across @ of_keys)) for of, of_keys in read]
        added.append((of_s, evidence @ relevance[:, q, of_s]))
        return [(s, of, relevance[:, s, of] + more) for of, more in added]


def _norm(trace: AttentionTrace, step: AttentionStep, modality: str, relevance: Tensor) -> Tensor:
    """Return norm(R) = I + rownorm(R − I) of one modality (Huang et al. 2023, Eq. 27-34), [B, n, n_input].

    After token maps, I stands for the identity that they carried on.
    """
    rows, columns = trace.layout(step).span(modality), trace.span(modality)
    own, mapped = relevance[:, rows, columns], trace.mapped(step)
    identity = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
    start = identity if mapped is None else mapped[:, rows, columns]
    return start + normalise_rows(own - start)
