"""Raw attention: the weights of the last attention of each kind."""

from torch import Tensor

from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class RawAttention(LastAttention):
    """The map E_h[A] of the last self-attention (R_ss), cross-attention (R_sq) or joint attention (R).

    See docs/method.md, Baselines.
    """

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """Return E_h[A] of the step, [B, n_s, n_q]."""
        return step.attention.mean(1, dtype=trace.dtype)
