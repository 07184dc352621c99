"""GradCAM (Selvaraju et al. 2017) on attention, as in Chefer et al. 2021."""

from torch import Tensor

from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class AttentionGradCAM(LastAttention):
    """(E_h[g_h · A_h])⁺ of the last attention of each kind, g_h the mean of ∇A_h over the map.

    The mean leaves padded queries and keys out. Entries that a causal mask closes count, as in the reference code.
    """

    needs = ("attention_grad",)

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """(E_h[g_h · A_h])⁺."""
        weighted = _mean_gradient(trace, step) * step.attention
        return weighted.mean(1, dtype=trace.dtype).clamp_(min=0)


def _mean_gradient(trace: AttentionTrace, step: AttentionStep) -> Tensor:
    """g_h, the mean of ∇A_h over valid queries and keys, [B, H, 1, 1]."""
    grad = step.tensor("attention_grad")
    queries, keys = trace.valid_tokens(step.query), trace.valid_tokens(step.key)
    if queries is None or keys is None:
        return grad.mean((2, 3), keepdim=True, dtype=trace.dtype)
    seen = (queries[:, :, None] & keys[:, None, :])[:, None]
    return (grad * seen).sum((2, 3), keepdim=True, dtype=trace.dtype) / seen.sum((2, 3), keepdim=True).clamp(min=1)
