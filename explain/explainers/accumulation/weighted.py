"""Weighted relevance, the method of Huang et al. 2023 (arXiv:2308.10240)."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.explainers.base.importance import (
    Importance,
    ResidualGradient,
    check_option,
    needed_fields,
    residual_weight,
)
from explain.trace import AttentionStep, AttentionTrace


class Weighted(Accumulation):
    """Weighted relevance: R[s] ← w_X · R[s] + w_Y · Ā · R[q] in every step (Huang et al. 2023, Eq. 1-11).

    The weights w_X and w_Y measure how important the block's input X and output Y are to the explained scalar. Every
    row of R is non-negative and sums to 1 after every step. See docs/method.md, Weighted relevance.

    Args:
        residual_gradient: The ∇X of Huang et al. 2023, Eq. 7. ``total`` goes through all paths (the skip connection and
            the attention branch); ``branch`` goes through the skip connection only (∂y/∂X').
        importance: ``matrix`` for one pair of weights per sample and step, ``token`` for one pair per query token.

    Raises:
        ValueError: An option has an unknown value.
    """

    def __init__(self, residual_gradient: ResidualGradient = "total", importance: Importance = "matrix") -> None:
        check_option("residual_gradient", residual_gradient, ResidualGradient)
        check_option("importance", importance, Importance)
        self.residual_gradient: ResidualGradient = residual_gradient
        self.importance: Importance = importance
        self.needs = needed_fields(residual_gradient)

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return ``keep`` and ``mix`` for one step (Huang et al. 2023, Eq. 4 and 9-11)."""
        return weighted_update(trace, step, residual_weight(trace, step, self.residual_gradient, self.importance))
