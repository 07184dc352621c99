"""GradCAM (Selvaraju et al. 2017) applied to attention, as in Chefer et al. 2021."""

from torch import Tensor

from explain.explainers.base.last_attention import LastAttention
from explain.trace import AttentionStep, AttentionTrace


class AttentionGradCAM(LastAttention):
    """The map (E_h[g_h · A_h])⁺ of the last attention of each kind, where g_h is the mean of ∇A_h over the map.

    The mean excludes padded queries and keys. It includes entries that a causal mask sets to zero, as the reference
    code does. See docs/method.md, Baselines.
    """

    needs = ("attention_grad",)

    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """Return (E_h[g_h · A_h])⁺ of the step, [B, n_s, n_q]."""
        weighted = _mean_gradient(trace, step) * step.attention
        return weighted.mean(1, dtype=trace.dtype).clamp_(min=0)


def _mean_gradient(trace: AttentionTrace, step: AttentionStep) -> Tensor:
    """Return g_h, the mean of ∇A_h over valid queries and keys, [B, H, 1, 1]."""
    grad = step.tensor("attention_grad")
    layout = trace.layout(step)
    queries, keys = layout.valid_tokens(step.query), layout.valid_tokens(step.key)
    if queries is None or keys is None:
        return grad.mean((2, 3), keepdim=True, dtype=trace.dtype)
    seen = (queries[:, :, None] & keys[:, None, :])[:, None]
    return (grad * seen).sum((2, 3), keepdim=True, dtype=trace.dtype) / seen.sum((2, 3), keepdim=True).clamp(min=1)
