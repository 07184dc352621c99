"""A tiny trained model and a perturbation run of it, for the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from perturb_runs import Trained
from tiny_runs import Tiny

from clipmapper.checkpoint import read_checkpoint


@pytest.fixture(scope="session")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(run)
    checkpoint = run / "checkpoints" / "best.ckpt"
    undecided(checkpoint)
    return Trained(tiny, checkpoint)


def undecided(checkpoint: Path) -> None:
    """Makes the trained weights waver between yes and no, so that removed tokens change answers, right ones too."""
    content = read_checkpoint(checkpoint)
    answers, weights = content["clipmapper"]["answers"], content["state_dict"]
    draw = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 0.3 * torch.randn(tensor.shape, generator=draw)
    weights["model.head.1.bias"] = torch.tensor([4.0 * (answer in ("yes", "no")) - 2 for answer in answers])
    torch.save(content, checkpoint)


@pytest.fixture(scope="session")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained.perturb(run, "ceiling.samples=4")
    return run
