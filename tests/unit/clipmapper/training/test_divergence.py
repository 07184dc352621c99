"""The check of the loss and the weights on the model's device."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from clipmapper.training.callbacks.divergence import StopAtDivergence


def test_the_validation_before_the_first_step_reads_the_weights_on_their_device() -> None:
    seen: list[str] = []

    def reduce(steps: Tensor, reduce_op: str) -> Tensor:
        seen.append(steps.device.type)
        return torch.full([2], 2**62)

    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(reduce=reduce))
    callback = StopAtDivergence("lower it", Path("last.ckpt"))
    callback.on_validation_start(trainer, nn.Linear(2, 1, device="meta"))  # type: ignore[arg-type]
    assert seen == ["meta"]
