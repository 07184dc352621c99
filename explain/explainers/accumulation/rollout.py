"""Attention rollout (Abnar and Zuidema 2020), with the cross-modal scores of Chefer et al. 2021."""

from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write, input_rows
from explain.explainers.base.maps import mean_attention
from explain.trace import AttentionStep, AttentionTrace, read_through


class Rollout(Accumulation):
    """Rollout (Abnar and Zuidema 2020), as written in Huang et al. 2023, appendix A, Eq. 24-26.

    The map is the product of rownorm(E_h[A] + I) over the self-attentions (Huang et al. 2023, Eq. 24-25); it uses no
    gradients. A joint attention multiplies all of R. A cross-attention sets R_sq = R_ssᵀ · E_h[A] · R_qq, where R is
    read before the step (Huang et al. 2023, Eq. 26), so only the last cross-attention counts. In a trace with
    cross-attentions, a self-attention changes only R_ss. If s reads a modality t only through q, the step also sets
    R_st, with R_qt in place of R_qq. See docs/method.md, Baselines.
    """

    linear_cross_attention = False

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update of a self- or joint attention by rownorm(E_h[A] + I).

        The part that comes from I is ``keep``, and the part that comes from E_h[A] is ``mix``.
        """
        attention = mean_attention(trace, step)
        keep = 1 / (1 + attention.sum(-1, keepdim=True))
        layout = trace.layout(step)
        return Update(layout.span(step.query), layout.span(step.key), keep, attention.mul_(keep))

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """Return the new values of R that the step writes: R_sq of a cross-attention, R_ss of a self-attention."""
        if self.is_linear(trace):
            return super().writes(trace, step, relevance)
        layout = trace.layout(step)
        s, q = layout.span(step.query), layout.span(step.key)  # rows
        of_s, of_q = trace.span(step.query), trace.span(step.key)  # columns
        if step.is_cross:
            across = relevance[:, s, of_s].mT @ mean_attention(trace, step)
            read = [of_q, *map(trace.span, read_through(trace.steps, step))]
            return [(s, of, input_rows(trace, step, across @ relevance[:, q, of])) for of in read]
        return [self.update(trace, step).write(relevance, columns=of_s)]
