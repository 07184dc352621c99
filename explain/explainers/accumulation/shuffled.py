"""A control for the weighted method: weights that adapt, but to another sample."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.explainers.base.importance import ResidualGradient, check_option, needed_fields, residual_weight
from explain.trace import AttentionStep, AttentionTrace, TraceError


class Shuffled(Accumulation):
    """The weighted update (Huang et al. 2023, Eq. 4, 9-11) with each step's weights from the sample before it.

    The first sample takes the weights of the last. One sample's relevance therefore depends on the batch it is in.

    Args:
        residual_gradient: ∇X of Eq. 7, as in :class:`~explain.explainers.Weighted`.

    Raises:
        ValueError: ``residual_gradient`` is unknown.
        TraceError: when called on a batch of one, which has no other sample.
    """

    min_batch = 2

    def __init__(self, residual_gradient: ResidualGradient = "total") -> None:
        check_option("residual_gradient", residual_gradient, ResidualGradient)
        self.residual_gradient: ResidualGradient = residual_gradient
        self.needs = needed_fields(residual_gradient)

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """The weighted update with w_X rolled by one along the batch."""
        if trace.batch < self.min_batch:
            raise TraceError("Shuffled takes the weights of another sample: it needs a batch of at least two")
        weight = residual_weight(trace, step, self.residual_gradient, "matrix")
        return weighted_update(trace, step, weight.roll(1, dims=0))
