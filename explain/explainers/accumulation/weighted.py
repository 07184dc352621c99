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
    """R[s] ← w_X · R[s] + w_Y · Ā · R[q], weighted by the importance of the block's input and output (Eq. 1-11).

    Every row of R is non-negative and sums to 1 after every step.

    Args:
        residual_gradient: ∇X of Eq. 7: ``total``, through the skip connection and the attention branch, or
            ``branch``, through the skip connection alone (∂y/∂X').
        importance: ``matrix``, one pair of weights per sample and step, or ``token``, one per query token.

    Raises:
        ValueError: an option is none of these.
    """

    def __init__(self, residual_gradient: ResidualGradient = "total", importance: Importance = "matrix") -> None:
        check_option("residual_gradient", residual_gradient, ResidualGradient)
        check_option("importance", importance, Importance)
        self.residual_gradient: ResidualGradient = residual_gradient
        self.importance: Importance = importance
        self.needs = needed_fields(residual_gradient)

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Eq. 4, 9, 10, 11."""
        return weighted_update(trace, step, residual_weight(trace, step, self.residual_gradient, self.importance))
