"""Weights of the skip connection and the attention (Huang et al. 2023, arXiv:2308.10240, Eq. 5-7)."""

from typing import Literal, get_args

from torch import Tensor

from explain.trace import AttentionStep, AttentionTrace

ResidualGradient = Literal["total", "branch"]
Importance = Literal["matrix", "token"]


def residual_weight(
    trace: AttentionTrace, step: AttentionStep, residual_gradient: ResidualGradient, importance: Importance
) -> Tensor:
    """Return w_X = S_X / (S_X + S_Y), the weight of the skip connection (Huang et al. 2023, Eq. 5).

    The weight of the attention is w_Y = 1 − w_X (Huang et al. 2023, Eq. 6). Both are ½ if S_X + S_Y = 0. The
    importances are S_X = mean((X ⊙ ∇X)⁺) and S_Y = mean((Y ⊙ ∇Y)⁺) (Huang et al. 2023, Eq. 7). See docs/method.md,
    Weighted relevance.

    Args:
        trace: The trace that contains the step.
        step: The attention step.
        residual_gradient: ``total``: ∇X goes through all paths. ``branch``: ∇X = ∂y/∂X', which goes through the skip
            connection only and equals ∇Y.
        importance: ``matrix``: the mean runs over valid tokens and channels. ``token``: it runs over the channels of
            each token.

    Returns:
        w_X, [B, 1, 1] for ``matrix`` and [B, n_s, 1] for ``token``.
    """
    skip_grad = "residual_grad" if residual_gradient == "total" else "output_grad"
    residual = _importance(trace, step, "residual", skip_grad, importance)
    output = _importance(trace, step, "output", "output_grad", importance)
    total = residual + output
    return (residual / total.masked_fill(total == 0, 1)).masked_fill_(total == 0, 0.5)


def needed_fields(residual_gradient: ResidualGradient) -> tuple[str, ...]:
    """Return the names of the step's optional fields that weighted relevance reads."""
    fields = ("attention_grad", "residual", "output", "output_grad")
    return (*fields, "residual_grad") if residual_gradient == "total" else fields


def check_option(name: str, value: str, options: object) -> None:
    """Raise ValueError, with the valid choices, unless ``value`` is one of the literal type ``options``."""
    if value not in get_args(options):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(get_args(options))}")


def _importance(trace: AttentionTrace, step: AttentionStep, value: str, grad: str, importance: Importance) -> Tensor:
    product = (step.tensor(value) * step.tensor(grad)).clamp_(min=0)
    tokens = product.mean(-1, keepdim=True, dtype=trace.dtype)
    if importance == "token":
        return tokens
    valid = trace.layout(step).valid_tokens(step.query)
    if valid is None:
        return tokens.mean(1, keepdim=True)
    return (tokens * valid[:, :, None]).sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
