"""The ablation of Huang et al. 2023 (arXiv:2308.10240, Fig. 7): skip connection and attention have equal weight."""

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.trace import AttentionStep, AttentionTrace


class Uniform(Accumulation):
    """The weighted update (Huang et al. 2023, Eq. 4 and 9-11) with w_X = w_Y = ½ in every step.

    See docs/method.md, Controls.
    """

    needs = ("attention_grad",)
    control = True

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the update ½ · R[s] + ½ · Ā · R[q] of one step."""
        return weighted_update(trace, step, step.attention.new_full((1, 1, 1), 0.5, dtype=trace.dtype))
