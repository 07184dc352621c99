"""TransAtt (Chefer et al. 2021, Transformer Interpretability Beyond Attention Visualization, CVPR)."""

from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, Write
from explain.explainers.base.explainer import Precision
from explain.explainers.base.importance import check_option
from explain.explainers.base.maps import positive_evidence
from explain.trace import AttentionStep, AttentionTrace, read_through


class TransAtt(Accumulation):
    """TransAtt (Chefer et al., CVPR 2021), which multiplies gradients by the LRP relevance of the attention, Rel_A.

    A self- or joint attention updates R_ss ← R_ss + E_h[(∇A ⊙ Rel_A)⁺] · R_ss. R_sq is E_h[(∇A ⊙ Rel_A)⁺] of the last
    cross-attention, and R_st of a modality t that s reads only through q is its product with R_qt. In a trace with
    cross-attentions, a self-attention changes only R_ss. See docs/method.md, Baselines.

    Args:
        precision: Precision of the LRP pass: ``float64``, ``model`` for the model's own, or ``auto``, which is float64
            for models of less than 1 GB.

    Raises:
        ValueError: ``precision`` has an unknown value.
    """

    needs = ("attention_grad", "attention_relevance")
    linear_cross_attention = False

    def __init__(self, precision: Precision = "auto") -> None:
        check_option("precision", precision, Precision)
        self.precision = precision

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update R[s] + E_h[(∇A ⊙ Rel_A)⁺] · R[s] of a self- or joint attention."""
        evidence = positive_evidence(trace, step, "attention_relevance")
        layout = trace.layout(step)
        return Update(layout.span(step.query), layout.span(step.key), evidence.new_ones(1, 1, 1), evidence)

    def writes(self, trace: AttentionTrace, step: AttentionStep, relevance: Tensor) -> list[Write]:
        """Return the new values of R that the step writes: R_sq of a cross-attention, R_ss of a self-attention."""
        if self.is_linear(trace):
            return super().writes(trace, step, relevance)
        layout, columns = trace.layout(step), trace.span(step.key)
        if step.is_cross:
            evidence = positive_evidence(trace, step, "attention_relevance")
            rows, keys = layout.span(step.query), layout.span(step.key)
            mapped = trace.mapped(step)
            found = [(rows, columns, evidence if mapped is None else evidence @ mapped[:, keys, columns])]
            further = map(trace.span, read_through(trace.steps, step))
            return [*found, *((rows, of, evidence @ relevance[:, keys, of]) for of in further)]
        return [self.update(trace, step).write(relevance, columns=columns)]
