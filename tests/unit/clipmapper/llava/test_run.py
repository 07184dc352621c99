"""A whole training run in small, and what its config refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import llava_parts as parts
import pytest
import torch
from tiny_runs import composed

import clipmapper
from clipmapper.cli import typed
from clipmapper.errors import UserError
from clipmapper.llava.config import TrainLlavaConfig
from clipmapper.llava.run import run_training
from clipmapper.llava.training import LlavaTraining
from clipmapper.training.checkpoint_file import read_checkpoint_file

pytest.importorskip("transformers")


def run(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    folder.mkdir()
    config = parts.config(steps=2, validate_every=1, output=str(folder / "copy"), **changes)
    run_training(config, folder)
    written = load_file(folder / "shapes-llava" / "model.safetensors")
    assert (folder / "copy" / "model.safetensors").read_bytes() == (
        folder / "shapes-llava" / "model.safetensors"
    ).read_bytes()
    return written


@pytest.mark.slow
def test_a_run_writes_the_model_and_its_figures_and_depends_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (run(tmp_path / str(k), seed=seed, threads=1) for k, seed in enumerate((0, 0, 1)))
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not all(torch.equal(weight, other[name]) for name, weight in first.items())
    found = json.loads((tmp_path / "0" / "llava.json").read_text())
    assert found["test"]["vqa"]["questions"] == 24
    assert found["config"]["steps"] == 2
    for folder in (tmp_path / "0", tmp_path / "0" / "copy"):
        model = clipmapper.load(folder)
        assert (model.task, model.accuracy) == ("generation", found["test"]["vqa"]["accuracy"])
        assert model.metrics["test"]["true_captions"] == pytest.approx(found["test"]["true_captions"] / 100)
    said = json.loads((tmp_path / "0" / "said_test.json").read_text())
    assert (len(said["answers"]), len(said["captions"])) == (24, 4)
    assert (tmp_path / "0" / "checkpoints" / "last.ckpt").is_file()


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a model's folder"):
        run_training(parts.config(output=str(tmp_path)), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_training_that_diverges_ends_at_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = LlavaTraining.training_step

    def spoiled(module: LlavaTraining, batch: Any, number: int) -> torch.Tensor:
        loss = usual(module, batch, number)
        return loss * math.nan if module.global_step == 2 else loss

    monkeypatch.setattr(LlavaTraining, "training_step", spoiled)
    (tmp_path / "run").mkdir()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    said = rf"^the training diverged: the loss of step 3 is NaN or infinite; lower lr=\S+; .* of step 2 .* {last}$"
    with pytest.raises(UserError, match=said):
        run_training(parts.config(steps=4, validate_every=2), tmp_path / "run")
    assert not (tmp_path / "run" / "shapes-llava").exists()
    assert read_checkpoint_file(last)["global_step"] == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["questions=7"], r"questions=7 is more than data\.questions_per_scene=6"),
        (["decoder.heads=3"], r"decoder\.heads=3: give a divisor of 64"),
        (["steps=0"], r"steps=0 must be 1 or more"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        typed(composed("train_llava", *overrides), TrainLlavaConfig)
