"""TransAtt: Chefer et al. 2021, Transformer Interpretability Beyond Attention Visualization (CVPR)."""

from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write
from explain.explainers.base.maps import positive_evidence
from explain.trace import AttentionStep, AttentionTrace


class TransAtt(Accumulation):
    """R_ss ← R_ss + E_h[(∇A ⊙ Rel_A)⁺] · R_ss in self- and joint attention, Rel_A the LRP relevance of A.

    R_sq is E_h[(∇A ⊙ Rel_A)⁺] of the last cross-attention; in a trace with cross-attentions a self-attention changes
    R_ss only.
    """

    needs = ("attention_grad", "attention_relevance")
    linear_cross_attention = False

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """R + E_h[(∇A ⊙ Rel_A)⁺] · R of a self- or joint attention."""
        evidence = positive_evidence(trace, step, "attention_relevance")
        return Update(trace.span(step.query), trace.span(step.key), evidence.new_ones(1, 1, 1), evidence)

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """R_sq of a cross-attention, R_ss of a self-attention."""
        if self.is_linear(trace):
            return super().writes(trace, step, relevance)
        s, q = trace.span(step.query), trace.span(step.key)
        if step.is_cross:
            return [(s, q, positive_evidence(trace, step, "attention_relevance"))]
        return [self.update(trace, step).write(relevance, columns=s)]
