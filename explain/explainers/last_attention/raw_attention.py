"""Raw attention: what the last attention of each kind looks at."""

from torch import Tensor

from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class RawAttention(LastAttention):
    """E_h[A] of the last self-attention (R_ss), cross-attention (R_sq) or joint attention (R)."""

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """E_h[A]."""
        return step.attention.mean(1, dtype=trace.dtype)
