"""A control for the weighted method: one weight for every step, so that nothing adapts."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.trace import AttentionStep, AttentionTrace


class Constant(Accumulation):
    """The weighted update (Huang et al. 2023, Eq. 4, 9-11) with one w_X in every step, and w_Y = 1 − w_X.

    Args:
        weight: w_X, from 0 to 1.

    Raises:
        ValueError: the weight is outside 0..1.
    """

    needs = ("attention_grad",)

    def __init__(self, weight: float = 0.7) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"weight={weight}: must lie between 0 and 1")
        self.weight = weight

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """w · R[s] + (1 − w) · Ā · R[q]."""
        return weighted_update(trace, step, step.attention.new_full((1, 1, 1), self.weight, dtype=trace.dtype))
