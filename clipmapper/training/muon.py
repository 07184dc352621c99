"""Muon, an optimizer for matrices; ``torch.optim.Muon`` to rounding, working on all matrices of a shape at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# The quintic whose repeated use brings singular values near 1 (Jordan et al. 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps of momentum, each matrix's step made nearly orthogonal (Jordan et al. 2024).

    A step is scaled to the size of Adam's, so that one learning rate serves both (Liu et al. 2025). Torch's own takes
    the matrices one by one; a mapper has dozens of small ones, and that cost a fifth of its training.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float, iterations: int = 5):
        """``iterations`` of the quintic a step."""
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95, "iterations": iterations}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ``closure`` reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                steps = orthogonal(torch.stack([self._momentum(m, group) for m in matrices]), group["iterations"])
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))
        return loss

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(average, group["momentum"])


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """U S Vᵀ to nearly U Vᵀ for each of [K, n, m], in bfloat16, by Newton and Schulz's iteration: S ends about 1."""
    a, b, c = _QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
