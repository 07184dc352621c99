"""The LRP rules, as autograd functions whose backward pass propagates relevance instead of a gradient.

Each function takes the operands and the value that torch computed from them, and returns that value unchanged. The
rules are those of Chefer et al. 2021 (CVPR), section 3, and of its reference implementation, except that sums run over
each item of the first dimension separately. Products of entries follow the rule of matrix products. See docs/method.md,
Baselines.

The clone rule, x · Σ_i sd(R_i, x), needs no function. Up to rounding it is the sum of the R_i where x ≠ 0, and autograd
already adds up what reaches a tensor on several paths.
"""

from typing import Any

from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

EPSILON = 1e-9


def safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """Return sd(a, b) = a / (b + 1e-9), and 0 where b = 0.

    1e-9 is added for either sign of b, as the rules say. Where b + 1e-9 is 0, which is at b = −1e-9, the divisor is
    1e-9.

    Args:
        a: Dividend.
        b: Divisor, of the same shape or broadcastable with ``a``.
    """
    denominator = b + EPSILON
    denominator.masked_fill_(denominator == 0, EPSILON)
    return (a / denominator).masked_fill(b == 0, 0)


class Identity(Function):
    """The identity rule: all relevance goes to ``x`` (softmax, norms, activations, operations with a constant)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, and save the shape of ``x``."""
        ctx.shape = x.shape
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        """Return the relevance of ``x``, summed over broadcast dimensions."""
        return relevance.sum_to_size(ctx.shape), None


class Linear(Function):
    """The rule of x Wᵀ with a constant ``weight`` W [out, in]; a bias takes no relevance (α = 1, β = 0).

    R_x = x⁺ ⊙ (S W⁺) + x⁻ ⊙ (S W⁻), with Z = x⁺W⁺ᵀ + x⁻W⁻ᵀ, S = sd(R, Z) and (·)⁻ = min(·, 0).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, and save what the backward pass needs."""
        ctx.save_for_backward(x, weight)
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None]:
        """Return the relevance R_x; the weight takes none."""
        x, weight = ctx.saved_tensors
        x_pos, x_neg = x.clamp(min=0), x.clamp(max=0)
        w_pos, w_neg = weight.clamp(min=0), weight.clamp(max=0)
        s = safe_divide(relevance, F.linear(x_pos, w_pos) + F.linear(x_neg, w_neg))
        return x_pos * (s @ w_pos) + x_neg * (s @ w_neg), None, None


class TimesSelf(Function):
    """The first half of the rule of products and weighted sums: the gradient of ``x`` is multiplied by ``x``.

    For z = f(x, ...) that is linear in each operand, R_x = x ⊙ ∂(S ⊙ z)/∂x with S = sd(R, z), from :class:`Shares`.
    autograd computes the derivative. For a matrix product this is R_X = X ⊙ (S Yᵀ) and R_Y = Y ⊙ (Xᵀ S).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return ``x``, and save it."""
        ctx.save_for_backward(x)
        return x.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the relevance of ``x``."""
        (x,) = ctx.saved_tensors
        return x * gradient


class Shares(Function):
    """The second half of the rule of products and weighted sums: S = sd(R, z) / ``operands``.

    Each operand that takes relevance gets an equal part of it.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, operands: int) -> Tensor:
        """Return ``z``, and save it."""
        out = z.detach()
        ctx.save_for_backward(out)
        ctx.operands = operands
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        """Return S."""
        (z,) = ctx.saved_tensors
        return safe_divide(relevance, z) / ctx.operands, None


class Add(Function):
    """The rule of a + b where both take relevance: a ⊙ S and b ⊙ S with S = sd(R, a + b), each rescaled.

    Let Σ_a and Σ_b be the sums of the two. After rescaling, the two sum to |Σ_a| / (|Σ_a| + |Σ_b|) and
    |Σ_b| / (|Σ_a| + |Σ_b|) of ΣR. The sums run over one sample, that is, all dimensions of the result except the first.
    Where a model packs the tokens of a batch into one sequence, they run over one token.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, value: Tensor) -> Tensor:
        """Return ``value``, and save what the backward pass needs."""
        out = value.detach()
        ctx.save_for_backward(a, b, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the rescaled relevance of both operands."""
        a, b, out = ctx.saved_tensors
        s = safe_divide(relevance, out)
        parts = a * s, b * s
        sums = [_sample_sums(part) for part in parts]
        both = sums[0].abs() + sums[1].abs()
        # Without ε: where a sample's tokens are packed one by one, as in Qwen-VL, the sums can be smaller than it.
        share = (_sample_sums(relevance) / both).masked_fill(both == 0, 0)
        scales = [one.sign() * share for one in sums]
        a_relevance, b_relevance = (part * scale for part, scale in zip(parts, scales, strict=True))
        return a_relevance.sum_to_size(a.shape), b_relevance.sum_to_size(b.shape), None


def _sample_sums(x: Tensor) -> Tensor:
    """Sum each sample: [B, ...] → [B, 1, ...]; a tensor of fewer than two dimensions is returned as it is."""
    if x.ndim < 2:
        return x
    return x.sum(dim=tuple(range(1, x.ndim)), keepdim=True)
