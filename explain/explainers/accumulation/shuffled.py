"""A control for the weighted method: adaptive weights, but taken from a different sample."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.explainers.base.importance import ResidualGradient, check_option, needed_fields, residual_weight
from explain.trace import AttentionStep, AttentionTrace, TraceError


class Shuffled(Accumulation):
    """The weighted update (Huang et al. 2023, Eq. 4 and 9-11) with the weights of the previous sample in the batch.

    The first sample uses the weights of the last one, so a sample's relevance depends on the batch that contains it.
    See docs/method.md, Controls.

    Args:
        residual_gradient: The ∇X of Huang et al. 2023, Eq. 7: ``total`` or ``branch``, as in
            :class:`~explain.explainers.Weighted`.

    Raises:
        ValueError: ``residual_gradient`` is unknown.
        TraceError: When called on a batch of one, which has no other sample.
    """

    min_batch = 2
    control = True

    def __init__(self, residual_gradient: ResidualGradient = "total") -> None:
        check_option("residual_gradient", residual_gradient, ResidualGradient)
        self.residual_gradient: ResidualGradient = residual_gradient
        self.needs = needed_fields(residual_gradient)

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the weighted update of one step, with w_X shifted by one sample along the batch."""
        if trace.batch < self.min_batch:
            raise TraceError("Shuffled takes the weights of another sample: it needs a batch of at least two")
        weight = residual_weight(trace, step, self.residual_gradient, "matrix")
        return weighted_update(trace, step, weight.roll(1, dims=0))
