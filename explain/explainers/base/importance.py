"""How much relevance stays on the skip connection: the weights of Huang et al. 2023 (arXiv:2308.10240), Eq. 5-7."""

from typing import Literal, get_args

from torch import Tensor

from explain.trace import AttentionStep, AttentionTrace

ResidualGradient = Literal["total", "branch"]
Importance = Literal["matrix", "token"]


def residual_weight(
    trace: AttentionTrace, step: AttentionStep, residual_gradient: ResidualGradient, importance: Importance
) -> Tensor:
    """w_X = S_X / (S_X + S_Y), ½ where nothing is important (Eq. 5); w_Y = 1 − w_X (Eq. 6).

    S_X = mean((X ⊙ ∇X)⁺) and S_Y = mean((Y ⊙ ∇Y)⁺) over valid tokens and channels (Eq. 7). With the ``branch`` gradient
    ∇X is ∂y/∂X', through the skip connection alone, which equals ∇Y.

    Returns:
        [B, 1, 1] for ``matrix``; [B, n_s, 1] for ``token``, the mean over each token's own channels.
    """
    skip_grad = "residual_grad" if residual_gradient == "total" else "output_grad"
    residual = _importance(trace, step, "residual", skip_grad, importance)
    output = _importance(trace, step, "output", "output_grad", importance)
    total = residual + output
    return (residual / total.masked_fill(total == 0, 1)).masked_fill_(total == 0, 0.5)


def needed_fields(residual_gradient: ResidualGradient) -> tuple[str, ...]:
    """The fields of a step that weighted relevance reads."""
    fields = ("attention_grad", "residual", "output", "output_grad")
    return (*fields, "residual_grad") if residual_gradient == "total" else fields


def check_option(name: str, value: str, options: object) -> None:
    """Raise ValueError, naming the valid choices, unless ``value`` is one of the literal type's ``options``."""
    if value not in get_args(options):
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(get_args(options))}")


def _importance(trace: AttentionTrace, step: AttentionStep, value: str, grad: str, importance: Importance) -> Tensor:
    product = (step.tensor(value) * step.tensor(grad)).clamp_(min=0)
    tokens = product.mean(-1, keepdim=True, dtype=trace.dtype)
    if importance == "token":
        return tokens
    valid = trace.valid_tokens(step.query)
    if valid is None:
        return tokens.mean(1, keepdim=True)
    return (tokens * valid[:, :, None]).sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
