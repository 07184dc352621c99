"""A training is only continued as the same run: settings, data and steps, and with all of its curves."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed_runs import killed_at
from PIL import Image
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, composed, falls, weights_of, write_vqav2
from watching import watched

from clipmapper.cli import typed
from clipmapper.commands.train import train
from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.tasks.caption.training import CaptionTraining
from clipmapper.tasks.vqa.training import VQATraining
from clipmapper.training.checkpoint_file import write_checkpoint

DROPOUT = ("mapper.dropout=0.2", "trainer.log_every_n_steps=1")
CAPTIONS = ("task=caption", "task.max_length=6", "task.val_images=4")


@pytest.fixture(scope="module")
def stopped(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    with killed_at(VQATraining, 6):
        tiny.train(run)
    return run


SETTINGS = {
    "trainer.max_steps=16": "trainer.max_steps=8, but this run has trainer.max_steps=16",
    "trainer.precision=bf16-mixed": "trainer.precision=32-true, but this run has trainer.precision=bf16-mixed",
    "trainer.gradient_clip_val=0.5": "trainer.gradient_clip_val=1.0",
    "trainer.val_check_interval=2": "trainer.val_check_interval=4",
    "trainer.patience=3": "trainer.patience=None, but this run has trainer.patience=3",
    "trainer.limit_val_batches=1": "trainer.limit_val_batches=None",
    "task.optim.batch_size=16": "task.optim.batch_size=32",
    "task.optim.lr=0.1": "task.optim.lr=0.0015, but this run has task.optim.lr=0.1",
    "task.optim.name=adam": "task.optim.name=muon",
    "task.sees=question": "task.sees=both",
    "mapper=a": "mapper.name=b",
    "mapper.dropout=0.5": "mapper.dropout=",
    "seed=3": "seed=0",
    "threads=2": "threads=1",
    "data.pixels=64": "data.pixels=",
    "data.seed=7": "data.seed=0",
    "data.min_answer_questions=5": "data.min_answer_questions=1, but",
}


@pytest.mark.parametrize("override", SETTINGS)
def test_other_settings_are_named_and_refused(stopped: Path, tiny: Tiny, tmp_path: Path, override: str) -> None:
    """Before the data is read, and before anything is written."""
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"contains a run with {SETTINGS[override]}"):
        tiny.train(tmp_path / "resumed", override, f"resume={stopped}")
    assert list((tmp_path / "resumed").rglob("*")) == []
    with pytest.raises(UserError, match=f"contains a run with {SETTINGS[override]}"):
        train(tiny.config(override, f"resume={stopped}"), stopped)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def edited(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replaced(path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(path)


QUESTIONS, ANSWERS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"
CONTENT: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a reworded question": (
        "train questions",
        lambda root: edited(root / QUESTIONS.format("train2014"), lambda c: c["questions"][0].update(question="what?")),
    ),
    "a changed answer": (
        "train answers",
        lambda root: edited(
            root / ANSWERS.format("train2014"), lambda c: c["annotations"][0]["answers"][0].update(answer="no")
        ),
    ),
    "a replaced image": ("images", lambda root: replaced(next((root / "images" / "train2014").iterdir()))),
}


@pytest.fixture(scope="module")
def trained_on_files(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset in VQAv2's layout, and the run of a training on it that has ended."""
    root = tmp_path_factory.mktemp("files")
    write_vqav2(root / "data")
    train(of_files(tiny, root / "data"), made(root / "run"))
    return root / "data", root / "run"


def of_files(tiny: Tiny, root: Path, *more: str) -> TrainConfig:
    data = ("data=vqav2", f"data.root={root}", "data.reserved=4", "data.min_answer_questions=1")
    checked: TrainConfig = typed(composed("train", *tiny.base, *data, *more), TrainConfig)
    return checked


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("change", CONTENT)
def test_other_content_is_named_and_refused(
    trained_on_files: tuple[Path, Path], tiny: Tiny, tmp_path: Path, change: str
) -> None:
    data, run = trained_on_files
    named, act = CONTENT[change]
    shutil.copytree(data, tmp_path / "data")
    act(tmp_path / "data")
    with pytest.raises(UserError, match=rf"contains a run with {named}=\w+, but this run has {named}=\w+: resume"):
        train(of_files(tiny, tmp_path / "data", f"resume={run}"), made(tmp_path / "resumed"))
    assert list((tmp_path / "resumed").rglob("*")) == []


def test_moved_data_with_the_same_content_is_resumed(
    trained_on_files: tuple[Path, Path], tiny: Tiny, tmp_path: Path
) -> None:
    data, run = trained_on_files
    shutil.copytree(data, tmp_path / "moved")
    metrics = train(of_files(tiny, tmp_path / "moved", f"resume={run}"), made(tmp_path / "resumed"))
    assert metrics["val"] == read_json(run / "metrics.json")["val"]


def test_other_captions_are_named_and_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # Java takes seconds to start
    with killed_at(CaptionTraining, 6):
        tiny.train(tmp_path / "stopped", *CAPTIONS)
    for override, named in (
        ("task.label_smoothing=0.1", "task.label_smoothing"),
        ("task.vocabulary=all", "task.vocabulary"),
        ("data.seed=1", "data.seed"),
        ("task.max_length=7", "task.max_length"),
    ):
        with pytest.raises(UserError, match=f"contains a run with {named}="):
            tiny.train(tmp_path / named, *CAPTIONS, override, f"resume={tmp_path / 'stopped'}")
    identity = read_json(tmp_path / "stopped" / "identity.json")
    identity["val captions"] = "other"
    (tmp_path / "stopped" / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(UserError, match="contains a run with val captions=other, but this run has val captions="):
        tiny.train(tmp_path / "captions", *CAPTIONS, f"resume={tmp_path / 'stopped'}")


def test_a_training_that_has_ended_is_evaluated_again(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = tiny.train(tmp_path / "run")

    def refuse(*_: object) -> None:
        raise AssertionError("a step")

    with watched(VQATraining, "training_step", refuse):
        again = tiny.train(tmp_path / "again", f"resume={tmp_path / 'run'}")
        inside = train(tiny.config(f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert again == inside == metrics
    said = f"resume={tmp_path / 'run'}: that training has ended after 8 steps, so its best checkpoint is evaluated"
    assert capsys.readouterr().out.count(said) == 2
    for name in ("best", "last"):
        assert_same_weights(weights_of(tmp_path / "again", name), weights_of(tmp_path / "run", name))


def test_a_training_that_ended_early_makes_no_further_steps(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    falls(monkeypatch, VQATraining, "validation_step", "val/accuracy")
    early = ("trainer.max_steps=12", "trainer.val_check_interval=2", "trainer.patience=2")
    metrics = tiny.train(tmp_path / "run", *early)
    assert checkpoint_of(tmp_path / "run")["global_step"] == 6
    assert tiny.train(tmp_path / "again", *early, f"resume={tmp_path / 'run'}") == metrics
    assert checkpoint_of(tmp_path / "again")["global_step"] == 6
    assert "that training has ended after 6 steps" in capsys.readouterr().out


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log" / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "epoch"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("step", [6, 9])
def test_a_run_resumed_in_its_folder_has_all_rows_of_its_curves(tiny: Tiny, tmp_path: Path, step: int) -> None:
    steps = ("trainer.max_steps=12", "trainer.val_check_interval=4", *DROPOUT)
    tiny.train(tmp_path / "whole", *steps)
    run = tmp_path / "run"
    with killed_at(VQATraining, step):
        tiny.train(run, *steps)
    train(tiny.config(*steps, f"resume={run}"), run)
    assert rows(run) == rows(tmp_path / "whole")
    assert_same_weights(weights_of(run), weights_of(tmp_path / "whole"))


@pytest.mark.parametrize("damage", [("0.", "1."), ("step", "stop"), (",", ";"), ("\n", ",,,,,,,\n")])
def test_changed_curves_are_refused_and_lost_ones_are_not_needed(
    stopped: Path, tiny: Tiny, tmp_path: Path, damage: tuple[str, str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    curves = run / "log" / "metrics.csv"
    text = curves.read_text()
    changed = text.replace(*damage, 1)
    assert changed != text
    curves.write_text(changed)
    with pytest.raises(UserError, match=r"metrics\.csv: damaged or edited: .* or remove it, and the run is continued"):
        train(tiny.config(f"resume={run}"), run)
    assert curves.read_text() == changed
    curves.unlink()
    train(tiny.config(f"resume={run}"), run)
    assert rows(run)


def test_a_checkpoint_of_another_run_and_a_folder_without_an_identity_are_refused(
    stopped: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    content = checkpoint_of(run)
    content["clipmapper"]["seed"] = 5
    write_checkpoint(run / "checkpoints" / "last.ckpt", content)
    with pytest.raises(UserError, match=r"its last\.ckpt is of another run, which differs in seed"):
        tiny.train(tmp_path / "one", f"resume={run}")
    (run / "identity.json").unlink()
    with pytest.raises(UserError, match=r"there is no identity\.json, so it is not known whether"):
        tiny.train(tmp_path / "two", f"resume={run}")


def _cut_a_weight(state: dict[str, Any]) -> None:
    name = next(name for name, tensor in state["state_dict"].items() if tensor.ndim == 2)
    state["state_dict"][name] = state["state_dict"][name][:-1]


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no optimizer": (lambda state: state.pop("optimizer_states"), "optimizer_states is missing"),
    "no loops": (lambda state: state.pop("loops"), "loops is missing"),
    "empty loops": (lambda state: state["loops"].clear(), r"loops\.fit_loop is missing"),
    "null step": (lambda state: state.update(global_step=None), "global_step is None"),
    "no callbacks": (lambda state: state["callbacks"].clear(), "callbacks.* is missing"),
    "no weight": (lambda state: state["state_dict"].popitem(), r"state_dict\.\S+ is missing"),
    "a weight of another shape": (_cut_a_weight, r"\.\S+ is not a tensor \["),
    "a foreign parameter": (lambda state: state["optimizer_states"][0]["state"].update({999: {}}), "belongs to no"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_state_that_lacks_something_is_refused_before_it_is_loaded(
    stopped: Path, tiny: Tiny, tmp_path: Path, edit: str
) -> None:
    change, said = EDITS[edit]
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    state = checkpoint_of(run)
    change(state)
    write_checkpoint(run / "checkpoints" / "last.ckpt", state)
    with pytest.raises(UserError, match=rf"last\.ckpt: .*{said}"):
        tiny.train(tmp_path / "resumed", f"resume={run}")
