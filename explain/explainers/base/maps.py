"""One attention map a step: heads averaged, padding zeroed, rows normalised."""

from torch import Tensor

from explain.trace import AttentionStep, AttentionTrace


def mean_attention(trace: AttentionTrace, step: AttentionStep) -> Tensor:
    """E_h[A], [B, n_s, n_q]."""
    return zero_padding(trace, step, step.attention.mean(1, dtype=trace.dtype))


def positive_evidence(trace: AttentionTrace, step: AttentionStep, weighted: str = "attention") -> Tensor:
    """A* = E_h[(∇A ⊙ A)⁺], not normalised, [B, n_s, n_q] (Huang et al. 2023, Eq. 18).

    Args:
        trace: The trace of the step, with ``attention_grad``.
        step: The step.
        weighted: What the gradient multiplies: ``attention``, or ``attention_relevance`` for the LRP relevance of A.
    """
    evidence = (step.tensor("attention_grad") * step.tensor(weighted)).clamp_(min=0)
    return zero_padding(trace, step, evidence.mean(1, dtype=trace.dtype))


def zero_padding(trace: AttentionTrace, step: AttentionStep, attention: Tensor) -> Tensor:
    """Zero, in place, the rows and columns of padded tokens; [B, n_s, n_q]."""
    queries, keys = trace.valid_tokens(step.query), trace.valid_tokens(step.key)
    if queries is not None and keys is not None:
        attention.mul_(queries[:, :, None]).mul_(keys[:, None, :])
    return attention


def normalise_rows(attention: Tensor) -> Tensor:
    """rownorm: rows that sum to 1; a row of zeros stays as it is."""
    total = attention.sum(-1, keepdim=True)
    return attention / total.masked_fill(total == 0, 1)
