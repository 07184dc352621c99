"""Training: what the model learns, in which order, and resuming a killed run without any difference."""

from __future__ import annotations

import csv
import math
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from killed_runs import killed_at
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, falls, finish, start, weights_of
from torch.optim.optimizer import register_optimizer_step_post_hook
from watching import watched

from clipmapper.api import load_checkpoint
from clipmapper.checkpoint import read_checkpoint
from clipmapper.commands.train import _portable, train
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import words_of
from clipmapper.files import read_json
from clipmapper.metrics.vqa import score_predictions
from clipmapper.tasks import TASKS
from clipmapper.tasks.caption.data import prepare as prepare_captions
from clipmapper.tasks.vqa.data import prepare
from clipmapper.tasks.vqa.evaluation import evaluate
from clipmapper.tasks.vqa.model import load_vqa
from clipmapper.tasks.vqa.training import VQATraining
from clipmapper.training.checkpoint_file import write_checkpoint
from clipmapper.training.module import MuonAdam

DROPOUT = ("mapper.dropout=0.2", "trainer.log_every_n_steps=1")


def logged(run: Path, column: str) -> dict[int, float]:
    """Return a column of the log by step."""
    with (run / "log" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def killed_run(tiny: Tiny, run: Path, step: int, *overrides: str) -> None:
    with killed_at(VQATraining, step):
        tiny.train(run, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("mapper", ["a", "b"])
def test_a_small_dataset_is_memorised(tiny: Tiny, tmp_path: Path, mapper: str) -> None:
    run = tmp_path / "run"
    steps = ("trainer.max_steps=150", "trainer.val_check_interval=150", "trainer.log_every_n_steps=10")
    optim = ("task.optim.lr=3e-3", "task.optim.warmup_steps=10", "task.optim.batch_size=64")
    size = ("mapper.width=32", "mapper.layers=2", *optim)  # one layer attends within a modality, one across
    tiny.train(run, f"mapper={mapper}", *steps, *size)
    losses = list(logged(run, "train/loss").values())
    assert losses[-1] < losses[0] / 5
    config = tiny.config(f"mapper={mapper}", *size)
    prepared = prepare(config)
    model = load_vqa(run / "checkpoints" / "last.ckpt", config)
    score = evaluate(model.trained, prepared.datasets["train"], model.answers, tmp_path, "train")
    assert score is not None
    assert score.overall > 60, score.overall


def test_the_best_weights_are_also_written_in_half_precision(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "models" / "vqa.safetensors"
    metrics = tiny.train(tmp_path / "run", f"output={file}")
    config = tiny.config()
    whole = load_vqa(tmp_path / "run" / "checkpoints" / "best.ckpt", config)
    half = load_vqa(file, config)
    assert half.answers == whole.answers
    for mine, theirs in zip(half.trained.parameters(), whole.trained.parameters(), strict=True):
        assert torch.equal(mine, theirs.half().float())
    about = read_checkpoint(file)["clipmapper"]
    assert (about["metrics"], about["steps"]) == (metrics, config.trainer.max_steps)
    assert about["familiarity"] == checkpoint_of(tmp_path / "run", "best")["clipmapper"]["familiarity"]
    assert about["familiarity"] == TASKS["vqa"].data(config).familiarity
    with pytest.raises(UserError, match=r"output=model\.ckpt: weights are written as safetensors"):
        tiny.config("output=model.ckpt")


def test_the_same_config_and_seed_give_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    """This also holds if the first run computes the features and the second reads them from the cache."""
    cache = f"paths.cache={tmp_path / 'cache'}"
    for name in ("first", "second"):
        torch.rand(7)
        tiny.train(tmp_path / name, *DROPOUT, cache)
    tiny.train(tmp_path / "other", *DROPOUT, cache, "seed=1")
    first = weights_of(tmp_path / "first")
    assert_same_weights(first, weights_of(tmp_path / "second"))
    assert not torch.equal(first["model.head.1.weight"], weights_of(tmp_path / "other")["model.head.1.weight"])


@pytest.mark.parametrize("step", [pytest.param(4, marks=pytest.mark.slow), 6, pytest.param(11, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_one_that_was_not_killed(tiny: Tiny, tmp_path: Path, step: int) -> None:
    """The run is killed right after a validation, between two, and after the second one.

    Weights, learning rates, losses and scores are compared.
    """
    steps = ("trainer.max_steps=12", "trainer.val_check_interval=4", "task.optim.decay_start=6", *DROPOUT)
    whole, stopped, resumed = (tmp_path / name for name in ("whole", "stopped", "resumed"))
    metrics = tiny.train(whole, *steps)
    killed_run(tiny, stopped, step, *steps)
    again = tiny.train(resumed, *steps, f"resume={stopped}")
    assert again == metrics
    for name in ("last", "best"):
        assert_same_weights(weights_of(resumed, name), weights_of(whole, name))
    assert checkpoint_of(resumed)["global_step"] == 12
    assert checkpoint_of(resumed)["lr_schedulers"] == checkpoint_of(whole)["lr_schedulers"]
    start_step = step // 4 * 4
    for column in ("train/loss", "val/accuracy"):
        expected = {at: value for at, value in logged(whole, column).items() if at >= start_step}
        assert logged(resumed, column) == expected


@pytest.mark.slow
def test_a_resumed_run_that_is_killed_at_once_has_the_newest_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    killed_run(tiny, tmp_path / "first", 6)
    killed_run(tiny, tmp_path / "second", 4, f"resume={tmp_path / 'first'}")
    tiny.train(tmp_path / "third", f"resume={tmp_path / 'second'}")
    tiny.train(tmp_path / "whole")
    for name in ("best", "last"):
        assert_same_weights(weights_of(tmp_path / "third", name), weights_of(tmp_path / "whole", name))


def test_a_resumed_run_keeps_the_best_checkpoint_of_the_stopped_one(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("trainer.max_steps=12", "trainer.val_check_interval=4")
    falls(monkeypatch, VQATraining, "validation_step", "val/accuracy")
    tiny.train(tmp_path / "whole", *steps)
    killed_run(tiny, tmp_path / "stopped", 9, *steps)
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "stopped", moved)
    tiny.train(tmp_path / "resumed", *steps, f"resume={moved}")
    assert checkpoint_of(tmp_path / "resumed", "best")["global_step"] == 4
    assert_same_weights(weights_of(tmp_path / "resumed", "best"), weights_of(tmp_path / "whole", "best"))


def test_the_best_checkpoint_is_evaluated(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    falls(monkeypatch, VQATraining, "validation_step", "val/accuracy")
    config = tiny.config("trainer.max_steps=12", "trainer.val_check_interval=4", "task.optim.lr=0.03")
    run = tmp_path
    metrics = train(config, run)
    assert [checkpoint_of(run, name)["global_step"] for name in ("best", "last")] == [4, 12]
    prepared = prepare(config)
    given = {}
    for name in ("best", "last"):
        model = load_vqa(run / "checkpoints" / f"{name}.ckpt", config)
        score = evaluate(model.trained, prepared.datasets["val"], model.answers, tmp_path / name, "val")
        assert score is not None
        given[name] = read_json(tmp_path / name / "predictions_val.json")
    assert given["best"] != given["last"]
    assert given["best"] == read_json(run / "predictions_val.json")
    answers = {row["question_id"]: row["answer"] for row in given["best"]}
    assert score_predictions(answers, prepared.datasets["val"].questions).overall == metrics["val"]["accuracy"]


def test_the_best_checkpoint_is_chosen_by_the_accuracy_of_all_questions(tiny: Tiny, tmp_path: Path) -> None:
    """The 60 questions are one batch here; Lightning weights batches by size."""
    run = tmp_path / "run"
    tiny.train(run)
    config = tiny.config()
    prepared = prepare(config)
    model = load_vqa(run / "checkpoints" / "last.ckpt", config)
    dataset = prepared.datasets["val"]
    scores = []
    for row in range(len(dataset)):
        batch = dataset[[row]]
        best = int(model.trained(batch.image, batch.text).argmax())
        scores.append(float(batch.targets[0, best]))
    assert logged(run, "val/accuracy")[7] == pytest.approx(sum(scores) / len(scores), abs=1e-6)


@pytest.mark.parametrize(("steps", "interval", "validated"), [(10, 4, [4, 9]), (7, 100, [6]), (9, 3, [2, 5, 8])])
def test_the_last_weights_are_validated_too(
    tiny: Tiny, tmp_path: Path, steps: int, interval: int, validated: list[int]
) -> None:
    tiny.train(tmp_path / "run", f"trainer.max_steps={steps}", f"trainer.val_check_interval={interval}")
    assert list(logged(tmp_path / "run", "val/accuracy")) == validated
    assert checkpoint_of(tmp_path / "run")["global_step"] == steps


def test_the_first_step_comes_before_any_validation(tiny: Tiny, tmp_path: Path) -> None:
    order: list[str] = []
    with (
        watched(VQATraining, "training_step", lambda *_: order.append("step")),
        watched(VQATraining, "validation_step", lambda *_: order.append("validation")),
    ):
        tiny.train(tmp_path / "run", "trainer.max_steps=2", "trainer.val_check_interval=2")
    assert order[:3] == ["step", "step", "validation"]


def test_early_stop_ends_after_checks_without_progress(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falls(monkeypatch, VQATraining, "validation_step", "val/accuracy")
    tiny.train(tmp_path / "run", "trainer.max_steps=12", "trainer.val_check_interval=2", "trainer.patience=2")
    assert list(logged(tmp_path / "run", "val/accuracy")) == [1, 3, 5]


def test_a_checkpoint_contains_no_code_but_a_description(tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "run")
    for file in ("best", "last"):
        content = read_checkpoint(tmp_path / "run" / "checkpoints" / f"{file}.ckpt")
        assert content["clipmapper"]["mapper"]["width"] == 16
        assert all(name.startswith("model.") for name in content["state_dict"])
        assert bool(content.get("optimizer_states")) == (file == "last")  # two numbers for each weight
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_a_checkpoint_describes_the_training_data(tiny: Tiny, tmp_path: Path) -> None:
    scenes = "data.train_scenes=400"
    tiny.train(tmp_path / "run", scenes)
    known = load_checkpoint(tmp_path / "run").familiarity
    questions = prepare(tiny.config(scenes)).train.questions
    assert known.words == {word for question in questions for word in words_of(question.question)}
    assert known.images.distance(known.images.mean[None] + 100)[0] > 1
    captions = prepare_captions(tiny.config(scenes, "task=caption", "task.max_length=12")).familiarity
    assert captions["words"] is None
    assert captions["images"] == checkpoint_of(tmp_path / "run")["clipmapper"]["familiarity"]["images"]


@pytest.mark.parametrize("change", ["other", "missing"])
def test_the_description_of_the_training_data_is_not_compared_when_resuming(
    stopped_run: Path, tiny: Tiny, tmp_path: Path, change: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_run, run)
    held = checkpoint_of(run)
    if change == "missing":
        del held["clipmapper"]["familiarity"]
    else:
        held["clipmapper"]["familiarity"] = {"words": ["a"], "images": {"mean": "AACAPw==", "whitening": "AACAPw=="}}
    write_checkpoint(run / "checkpoints" / "last.ckpt", held)
    tiny.train(tmp_path / "resumed", f"resume={run}")


@pytest.fixture(scope="module")
def stopped_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    tiny.train(run)
    return run


def test_gradients_are_clipped_and_the_learning_rate_follows_its_curve(tiny: Tiny, tmp_path: Path) -> None:
    rates, norms = [], []

    def after(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if isinstance(optimizer, MuonAdam):  # not the two optimizers that it consists of
            rates.append(optimizer.param_groups[0]["lr"])
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            norms.append(float(torch.stack([p.grad.norm() for p in weights if p.grad is not None]).norm()))

    curve = ("task.optim.lr=0.01", "task.optim.warmup_steps=4", "task.optim.decay_start=6")
    seen = register_optimizer_step_post_hook(after)
    tiny.train(tmp_path / "run", *curve, "trainer.gradient_clip_val=0.05", "trainer.val_check_interval=8")
    seen.remove()
    expected = [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01, 0.01, 0.01 * 0.5 * (1 + math.cos(math.pi / 2))]
    assert rates == pytest.approx(expected)
    assert max(norms) <= 0.05 * (1 + 1e-4)
    assert min(norms) > 0.01


@pytest.mark.slow
def test_a_run_killed_by_the_system_and_resumed_has_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    steps = ("trainer.max_steps=400", "trainer.val_check_interval=20", *DROPOUT, "trainer.enable_progress_bar=false")
    tiny.train(tmp_path / "whole", *steps)
    stopped = tmp_path / "stopped"
    process = start("train", [*tiny.overrides, *steps, f"hydra.run.dir={stopped}"])
    last = stopped / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < checkpoint_of(stopped)["global_step"] < 400
    arguments = [*tiny.overrides, *steps, f"resume={stopped}", f"hydra.run.dir={tmp_path / 'resumed'}"]
    status, _, err = finish("train", arguments)
    assert status == 0, err
    for name in ("last", "best"):
        assert_same_weights(weights_of(tmp_path / "resumed", name), weights_of(tmp_path / "whole", name))
    metrics = [read_json(tmp_path / run / "metrics.json")["val"] for run in ("whole", "resumed")]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_two_processes_train_as_one(tiny: Tiny, tmp_path: Path) -> None:
    ddp = ("trainer.devices=2", "trainer.strategy=ddp")
    # Muon computes in bfloat16, which enlarges differences of rounding; Adam does not.
    steps = (
        "trainer.max_steps=12",
        "trainer.val_check_interval=6",
        "trainer.log_every_n_steps=1",
        "task.optim.name=adam",
    )
    one = tiny.train(tmp_path / "one", *steps)
    arguments = [*tiny.overrides, *steps, *ddp, f"hydra.run.dir={tmp_path / 'two'}"]
    status, _, err = finish("train", arguments)
    assert status == 0, err
    weights = weights_of(tmp_path / "one")
    for name, tensor in weights_of(tmp_path / "two").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=2e-5)
    assert logged(tmp_path / "two", "val/loss") == pytest.approx(logged(tmp_path / "one", "val/loss"), rel=1e-4)
    two = read_json(tmp_path / "two" / "metrics.json")
    assert two["val"]["questions"] == one["val"]["questions"]


def test_cards_leave_out_notes_about_the_machine() -> None:
    assert _portable({"CIDEr": 1.5, "notes": {"SPICE": "missing in /home/me"}}) == {"CIDEr": 1.5}
