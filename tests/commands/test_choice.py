"""The checkpoint that commands use when none is given, and what they print about it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from perturb_runs import Trained
from tiny_runs import PROJECT, Tiny

from clipmapper import choice, pretrained
from clipmapper.api import load_checkpoint, load_pretrained
from clipmapper.checkpoint import read_checkpoint
from clipmapper.choice import describe, find_checkpoint
from clipmapper.errors import UserError
from clipmapper.weights import write_weights

MODELS = PROJECT / "docs" / "results" / "models"


def saved(
    root: Path, name: str, content: dict[str, Any], age: int, accuracy: float | None = 60.0, made: int = 8
) -> Path:
    """Write a run that ended ``age`` seconds ago; without an accuracy, it has not ended."""
    run = root / "runs" / "train" / "any" / name
    path = run / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    torch.save({**content, "global_step": made}, path.with_name("last.ckpt"))
    (run / "config.yaml").write_text("task:\n  steps: 8\ntrainer:\n  max_steps: ${task.steps}\n")
    if accuracy is not None:
        (run / "metrics.json").write_text(json.dumps({"test": {"accuracy": accuracy}}))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.fixture
def content(trained: Trained) -> dict[str, Any]:
    return read_checkpoint(trained.checkpoint)


def test_the_newest_fitting_run_is_used(tiny: Tiny, content: dict[str, Any], tmp_path: Path) -> None:
    card = content["clipmapper"]

    def with_card(**changes: Any) -> dict[str, Any]:
        return {**content, "clipmapper": {**card, **changes}}

    usable = saved(tmp_path, "usable", content, age=50)
    saved(tmp_path, "older", content, age=60)
    saved(tmp_path, "other_data", with_card(data="easy_vqa"), age=5)
    saved(tmp_path, "other_mapper", with_card(mapper={**card["mapper"], "name": "a"}), age=4)
    saved(tmp_path, "other_width", with_card(mapper={**card["mapper"], "width": 32}), age=3)
    saved(tmp_path, "other_encoder", with_card(encoder={**card["encoder"], "model": "ViT-B-32"}), age=2)
    saved(tmp_path, "other_weights", with_card(encoder={**card["encoder"], "weights": "embedded"}), age=2)
    saved(tmp_path, "blind", with_card(sees="question"), age=1)
    saved(tmp_path, "foreign", {"state_dict": {}}, age=1)
    saved(tmp_path, "damaged", content, age=1).write_bytes(b"PK")
    config = tiny.evaluation(f"paths.root={tmp_path}")
    assert find_checkpoint(config, None) == usable
    with pytest.raises(UserError, match=r"no trained checkpoint of task=vqa data=shapes mapper=a in .*train\.py first"):
        find_checkpoint(tiny.evaluation(f"paths.root={tmp_path}", "mapper=a", "mapper.width=32"), None)


def test_unfinished_and_much_worse_runs_are_passed_over_and_named(
    tiny: Tiny, content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny.evaluation(f"paths.root={tmp_path}")
    saved(tmp_path, "best", content, age=500, accuracy=90.0)
    close = saved(tmp_path, "close", content, age=400, accuracy=85.0)
    worse = saved(tmp_path, "worse", content, age=300, accuracy=84.9)
    killed = saved(tmp_path, "killed", content, age=200, accuracy=None, made=4)
    assert find_checkpoint(config, None) == close
    first, second = capfd.readouterr().err.splitlines()
    assert first == (
        f"passed over, its training has not finished: {killed} (unfinished: 4 of 8 steps, 3 minutes old); "
        f"checkpoint={killed} uses it"
    )
    assert second == (
        f"passed over, 5.1 points below the best that fits: {worse} (accuracy 84.9 % on test, 8 steps, "
        f"5 minutes old); checkpoint={worse} uses it"
    )
    for given in (killed, worse):
        assert find_checkpoint(config, str(given)) == given
        assert find_checkpoint(config, str(given.parent.parent)) == given
    assert capfd.readouterr().err == ""
    assert find_checkpoint(config, str(tmp_path / "runs")) == worse
    assert capfd.readouterr().err.splitlines() == [first]
    for path in tmp_path.rglob("metrics.json"):
        path.unlink()
    assert find_checkpoint(config, str(tmp_path / "runs")) == killed
    assert capfd.readouterr().err == ""


def test_a_process_of_several_does_not_repeat_the_message(
    tiny: Tiny,
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    saved(tmp_path, "killed", content, age=200, accuracy=None)
    with pytest.raises(UserError, match="no trained checkpoint"):
        find_checkpoint(tiny.evaluation(f"paths.root={tmp_path}"), None)
    assert capfd.readouterr().err == ""


def test_the_shipped_model_is_used_where_no_run_is_good_enough(
    tiny: Tiny, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {**content["clipmapper"], "steps": 5000, "metrics": {"test": {"accuracy": 90.0}}}
    for module in (pretrained, choice):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "package")
    shipped = tmp_path / "package" / "vqa-b.safetensors"
    write_weights(shipped, card, content["state_dict"])
    config = tiny.evaluation(f"paths.root={tmp_path}")
    assert find_checkpoint(config, None) == shipped
    assert describe(shipped) == f"{shipped} (accuracy 90.0 % on test, 5,000 steps, shipped with the package)"
    saved(tmp_path, "weak", content, age=20, accuracy=80.0)
    assert find_checkpoint(config, None) == shipped
    good = saved(tmp_path, "good", content, age=30, accuracy=86.0)
    assert find_checkpoint(config, None) == good
    assert find_checkpoint(config, "shipped") == shipped
    assert find_checkpoint(tiny.evaluation(f"paths.root={tmp_path}", "mapper.width=32"), "shipped") == shipped
    with pytest.raises(UserError, match=r"checkpoint=shipped: no model of task=vqa data=shapes mapper=a is shipped"):
        find_checkpoint(tiny.evaluation("mapper=a"), "shipped")


@pytest.mark.parametrize(
    ("metrics", "score"),
    [
        ({"val": {"accuracy": 90.0}, "test": {"accuracy": 91.5}}, ("accuracy", 91.5, "test")),
        ({"val": {"accuracy": 90.0}}, ("accuracy", 90.0, "val")),
        ({"test": {"CIDEr": 1.25, "true_captions": 0.5}}, ("true captions", 50.0, "test")),
        ({"test": {"CIDEr": 1.25}}, ("CIDEr", 125.0, "test")),
        ({"checkpoint": "best.ckpt"}, None),
    ],
)
def test_the_score_that_compares_checkpoints(
    content: dict[str, Any], tmp_path: Path, metrics: dict[str, Any], score: tuple[str, float, str] | None
) -> None:
    path = tmp_path / "one.safetensors"
    write_weights(path, {**content["clipmapper"], "metrics": metrics}, content["state_dict"])
    assert choice.Candidate(path).score == score


def test_a_file_outside_a_run_is_described_by_its_age(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    os.utime(path, (time.time() - 90_000, time.time() - 90_000))
    assert describe(path) == f"{path} (1 day old)"


@pytest.mark.parametrize("path", sorted(pretrained.FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_shipped_models_have_their_scores_and_load(path: Path) -> None:
    task, mapper = path.stem.split("-")
    candidate = choice.Candidate(path)
    assert (candidate.card["task"], candidate.card["mapper"]["name"], candidate.card["seed"]) == (task, mapper, 0)
    assert candidate.score is not None
    assert candidate.score[1] > 88
    assert candidate.score[2] == "test"
    model = load_pretrained(task, mapper)
    assert not model.training
    same = load_checkpoint(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])


def test_the_weights_in_the_wheel_have_at_most_20_mb() -> None:
    files = list((PROJECT / "clipmapper").rglob("*.safetensors"))
    assert {"vqa-a", "vqa-b", "shapes-tiny"} <= {path.stem for path in files}
    assert sum(path.stat().st_size for path in files) <= 20e6


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "docs" / "results" / "models").iterdir()), ids=lambda path: path.stem
)
def test_the_models_of_other_seeds_differ_only_in_the_seed(path: Path) -> None:
    """They have the card of the shipped model of their kind, except for the seed, the scores and the weights."""
    task, mapper, seed = path.stem.split("-")
    card = choice.Candidate(path).card
    shipped = choice.Candidate(pretrained.FOLDER / f"{task}-{mapper}.safetensors").card
    assert card["seed"] == int(seed) != shipped["seed"]
    assert {key for key in card if card[key] != shipped[key]} == {"seed", "metrics"}


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"no model of task=vqa mapper=c is shipped; train one"):
        load_pretrained("vqa", "c")
