"""Tests of Muon: equal to torch's implementation to rounding, and its effect on singular values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipmapper.training.module import Muon, orthogonal

SHAPES = [(8, 8), (16, 8), (8, 8), (8, 24), (16, 8)]


def matrices(seed: int) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def train(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    draw = torch.Generator().manual_seed(7)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.step()


@pytest.mark.parametrize("iterations", [3, 5])
def test_steps_equal_those_of_torchs_muon(iterations: int) -> None:
    own, other = matrices(0), matrices(0)
    train(own, Muon(own, lr=0.02, weight_decay=0.1, iterations=iterations), 4)
    torchs = torch.optim.Muon(other, lr=0.02, weight_decay=0.1, ns_steps=iterations, adjust_lr_fn="match_rms_adamw")
    train(other, torchs, 4)
    for mine, theirs, initial in zip(own, other, matrices(0), strict=True):
        moved = float((theirs - initial).detach().norm())
        assert float((mine - theirs).detach().norm()) < 0.02 * moved  # bfloat16 has only 8 significant bits


@pytest.mark.parametrize("shape", [(6, 6), (5, 12), (12, 5)])
def test_singular_values_follow_the_polynomial_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for each, found in zip(x, orthogonal(x, 3), strict=True):
        u, s, v = torch.linalg.svd(each.double() / each.double().norm(), full_matrices=False)
        for _ in range(3):
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        torch.testing.assert_close(found.double(), u @ torch.diag(s) @ v, rtol=0, atol=0.03)


def test_a_matrix_without_a_gradient_is_unchanged() -> None:
    first, second = matrices(0)[:2]
    before = second.detach().clone()
    first.grad = torch.ones_like(first)
    Muon([first, second], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(second, before)
    assert not torch.equal(first, matrices(0)[0])
