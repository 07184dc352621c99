"""A control for the weighted method: the same weight in every step, so nothing adapts to the sample."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.trace import AttentionStep, AttentionTrace


class Constant(Accumulation):
    """The weighted update (Huang et al. 2023, Eq. 4 and 9-11) with the same w_X in every step, and w_Y = 1 − w_X.

    See docs/method.md, Controls.

    Args:
        weight: w_X, from 0 to 1.

    Raises:
        ValueError: The weight is outside 0..1.
    """

    needs = ("attention_grad",)
    control = True

    def __init__(self, weight: float = 0.7) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"weight={weight}: must be between 0 and 1")
        self.weight = weight

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update w_X · R[s] + (1 − w_X) · Ā · R[q] of one step."""
        return weighted_update(trace, step, step.attention.new_full((1, 1, 1), self.weight, dtype=trace.dtype))
