"""Tests of the soft-label binary cross-entropy loss and the training accuracy."""

from __future__ import annotations

import math

import pytest
import torch

from clipmapper.tasks.vqa.training import soft_accuracy, soft_label_loss


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_equals_a_loop_over_answers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 0.3, 0.6, 0.9, 1])[torch.randint(5, (5, 7), generator=generator)].double()
    total = 0.0
    for row in range(5):
        for answer in range(7):
            p = 1 / (1 + math.exp(-float(logits[row, answer])))
            t = float(targets[row, answer])
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    assert float(soft_label_loss(logits, targets)) == pytest.approx(total / 5, rel=1e-12)


def test_the_accuracy_is_the_mean_score_of_the_predicted_answers() -> None:
    targets = torch.tensor([[0.3, 1.0, 0.0], [0.6, 0.0, 0.9]])
    logits = torch.tensor([[2.0, -1.0, 0.0], [-3.0, -2.0, -1.0]])
    assert float(soft_accuracy(logits, targets)) == pytest.approx((0.3 + 0.9) / 2)
