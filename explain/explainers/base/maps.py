"""One attention map per step: average the heads, set padding to zero, normalise rows."""

from torch import Tensor

from explain.trace import AttentionStep, AttentionTrace


def mean_attention(trace: AttentionTrace, step: AttentionStep) -> Tensor:
    """Return E_h[A], the attention averaged over heads, [B, n_s, n_q]."""
    return zero_padding(trace, step, step.attention.mean(1, dtype=trace.dtype))


def positive_evidence(trace: AttentionTrace, step: AttentionStep, weighted: str = "attention") -> Tensor:
    """Return A* = E_h[(∇A ⊙ A)⁺], not normalised, [B, n_s, n_q] (Huang et al. 2023, Eq. 18).

    Args:
        trace: The trace that contains the step, with ``attention_grad``.
        step: The attention step.
        weighted: The field that the gradient multiplies: ``attention``, or ``attention_relevance`` for the LRP
            relevance of A.
    """
    evidence = (step.tensor("attention_grad") * step.tensor(weighted)).clamp_(min=0)
    return zero_padding(trace, step, evidence.mean(1, dtype=trace.dtype))


def zero_padding(trace: AttentionTrace, step: AttentionStep, attention: Tensor) -> Tensor:
    """Set the rows and columns of padded tokens to zero, in place, and return the map, [B, n_s, n_q]."""
    layout = trace.layout(step)
    queries, keys = layout.valid_tokens(step.query), layout.valid_tokens(step.key)
    if queries is not None and keys is not None:
        attention.mul_(queries[:, :, None]).mul_(keys[:, None, :])
    return attention


def normalise_rows(attention: Tensor) -> Tensor:
    """Return the map with rows that sum to 1 (rownorm); a row of zeros does not change."""
    total = attention.sum(-1, keepdim=True)
    return attention / total.masked_fill(total == 0, 1)
