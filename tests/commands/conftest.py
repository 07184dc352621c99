"""Fixtures for tests of whole runs: a tiny trained model, and a perturbation run of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_models
import torch
from any_model_runs import answering_vilt, write_table
from caption_runs import Captioner, random_captioner
from no_figures import without_figures
from perturb_runs import WHOLE, Trained
from tiny_runs import Tiny

from clipmapper.checkpoint import read_checkpoint
from clipmapper.training.checkpoint_file import write_checkpoint

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Every host but this machine cannot be reached.
OFFLINE = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")


@pytest.fixture
def _no_figures() -> Iterator[None]:
    with without_figures():
        yield


@pytest.fixture(scope="session")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(run)
    checkpoint = run / "checkpoints" / "best.ckpt"
    make_undecided(checkpoint)
    return Trained(tiny, checkpoint)


def make_undecided(checkpoint: Path) -> None:
    """Change the weights so that the model is undecided between yes and no.

    Removed tokens then change answers, including correct ones.
    """
    content = read_checkpoint(checkpoint)
    answers, weights = content["clipmapper"]["answers"], content["state_dict"]
    draw = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 0.3 * torch.randn(tensor.shape, generator=draw)
    weights["model.head.1.bias"] = torch.tensor([4.0 * (answer in ("yes", "no")) - 2 for answer in answers])
    write_checkpoint(checkpoint, content)


@pytest.fixture(scope="session")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained.perturb(run, *WHOLE, figures=True)
    return run


@pytest.fixture(scope="session")
def captioner(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    """A captioner with random weights."""
    return random_captioner(tiny, tmp_path_factory.mktemp("captioner") / "best.ckpt")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of transformers, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("vilt", "llava", "clip", "vit", "bert"):
        model, processor = answering_vilt() if name == "vilt" else getattr(sample_models, name)()
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with the samples of any model, and people's answers."""
    return write_table(tmp_path_factory.mktemp("table") / "table.csv", answers=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without network."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as program:
        found = program.chromium.launch(executable_path=CHROMIUM, args=[*OFFLINE])
        yield found
        found.close()
