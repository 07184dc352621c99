"""Losses and weights that are no numbers: training ends at the step, and its results are not used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import Tiny, checkpoint_of

from clipmapper.checkpoint import read_checkpoint
from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.filling import Writer
from clipmapper.files import write_json
from clipmapper.tasks.vqa.evaluation import predict
from clipmapper.tasks.vqa.training import VQATraining
from clipmapper.training.checkpoint_file import write_checkpoint

Command = Callable[..., tuple[int, str, list[str]]]


def spoil_loss(patch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """Make the loss of one training step (counted from 1) a value."""
    usual = VQATraining.training_step

    def spoiled(module: VQATraining, batch: Any, number: int) -> torch.Tensor:
        loss = usual(module, batch, number)
        return loss * value if module.global_step == step - 1 else loss

    patch.setattr(VQATraining, "training_step", spoiled)


@pytest.mark.parametrize(("step", "value", "kept"), [(6, math.nan, 4), (8, math.inf, 4), (1, math.nan, None)])
@pytest.mark.parametrize("every", [50, 1])
def test_a_training_ends_at_the_step_whose_loss_is_no_number(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, value: float, kept: int | None, every: int
) -> None:
    spoil_loss(monkeypatch, step, value)
    run = tmp_path / "run"
    with pytest.raises(UserError) as error:
        tiny.train(run, f"trainer.log_every_n_steps={every}")
    said = str(error.value)
    assert f"the training diverged: the loss of step {step} is NaN or infinite; lower task.optim.lr=" in said
    assert not (run / "metrics.json").exists()
    if kept is None:
        assert "no checkpoint was written yet" in said
        assert not (run / "checkpoints").exists()
    else:
        assert f"the weights of step {kept} are kept in {run}/checkpoints/last.ckpt" in said
        for name in ("last", "best"):
            assert checkpoint_of(run, name)["global_step"] == kept
            read_checkpoint(run / "checkpoints" / f"{name}.ckpt")


def test_weights_that_the_last_step_spoils_are_not_kept(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(module: VQATraining, _: Any) -> None:
        if module.global_step == 7:
            next(module.parameters()).grad.fill_(math.nan)  # type: ignore[union-attr]

    monkeypatch.setattr(VQATraining, "on_before_optimizer_step", spoil)
    with pytest.raises(UserError, match=r"weights after step 8 are NaN or infinite; .* of step 4 are kept"):
        tiny.train(tmp_path / "run", "trainer.gradient_clip_val=null")


def test_a_command_whose_training_diverges_ends_in_one_line(
    tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, 2, math.nan)
    run = tmp_path / "run"
    settings = ("task.optim.lr=0.5", "trainer.gradient_clip_val=null")
    status, _, errors = command("train", *tiny.overrides, *settings, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert "lower task.optim.lr=0.5, or clip gradients, trainer.gradient_clip_val=1" in errors[0]
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize("use", ["checkpoint", "resume"])
def test_a_checkpoint_with_such_weights_is_refused(use: str, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.train(run)
    path = run / "checkpoints" / "last.ckpt"
    content = checkpoint_of(run)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name].flatten()[0] = math.inf
    write_checkpoint(path, content)
    said = rf"last\.ckpt: 1 of the \d+ values of {name} are NaN or infinite"
    if use == "checkpoint":
        with pytest.raises(UserError, match=said):
            read_checkpoint(path)
    else:
        with pytest.raises(UserError, match=said):
            tiny.train(tmp_path / "resumed", f"resume={run}")


def test_outputs_that_are_no_numbers_are_not_scored() -> None:
    class Undecided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(math.nan))

        def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            return self.weight.expand(2, 3)

    class Batch:
        image = text = torch.zeros(2)

        def to(self, _: torch.device) -> Batch:
            return self

    class Data:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, rows: list[int]) -> Batch:
            return Batch()

    with pytest.raises(UserError, match=r"the model's outputs are no numbers \(NaN\)"):
        predict(Undecided(), Data())  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "dtype"), [(math.nan, "float32"), (1e6, "float16")])
def test_features_that_are_no_numbers_are_not_stored(value: float, dtype: str, tmp_path: Path) -> None:
    rows = torch.full((2, 3), value)
    with pytest.raises(UserError, match=f"features are NaN or infinite in {dtype}; give"):
        Writer(Catalogue(tmp_path), dtype).add(b"a" * 16, rows)
    assert list(tmp_path.iterdir()) == []


def test_json_has_null_for_an_undefined_number(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [1.5, (math.inf, 2)], "c": {"d": np.float64("nan")}})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    del found["checksum"]
    assert found == {"a": None, "b": [1.5, [None, 2]], "c": {"d": None}}
