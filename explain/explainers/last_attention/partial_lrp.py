"""Partial LRP (Voita et al. 2019): layer-wise relevance propagation from the output to the last attention."""

from torch import Tensor

from explain.explainers.base.explainer import Precision
from explain.explainers.base.importance import check_option
from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class PartialLRP(LastAttention):
    """The map E_h[Rel_A] of the last attention of each kind, where Rel_A is the LRP relevance of A.

    Scores can be negative. The reference code rescales them to 0..1 afterwards; this does not change the order of the
    tokens, so it is left out here. See docs/method.md, Baselines.

    Args:
        precision: Precision of the LRP pass: ``float64``, ``model`` for the model's own, or ``auto``, which is float64
            for models of less than 1 GB.

    Raises:
        ValueError: ``precision`` has an unknown value.
    """

    needs = ("attention_relevance",)

    def __init__(self, precision: Precision = "auto") -> None:
        check_option("precision", precision, Precision)
        self.precision = precision

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """Return E_h[Rel_A] of the step, [B, n_s, n_q]."""
        return step.tensor("attention_relevance").mean(1, dtype=trace.dtype)
