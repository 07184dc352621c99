"""A training that a signal stops writes a checkpoint from which it continues as if it had not been stopped."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, weights_of
from watching import watched

from clipmapper.process.stopping import Stopped, begin_work, stoppable
from clipmapper.tasks.vqa.training import VQATraining

EVERY_STEP = ("trainer.log_every_n_steps=1", "mapper.dropout=0.2")


def logged(*runs: Path) -> list[tuple[int, str, str]]:
    """Return step, name and value of all that runs logged, in the order of the steps."""
    found = set()
    for run in runs:
        if not (run / "log" / "metrics.csv").exists():  # it did no step
            continue
        with (run / "log" / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                found |= {(int(row["step"]), key, value) for key, value in row.items() if value and key != "step"}
    return sorted(found)


@pytest.mark.parametrize(
    ("hook", "at", "kept"),
    [
        ("training_step", 2, 3),  # the step is finished
        ("training_step", 3, 4),  # a validation is due after it
        ("validation_step", 4, 4),
        ("training_step", 7, 8),  # the last step and its validation
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_training_is_continued_exactly(
    tiny: Tiny, tmp_path: Path, hook: str, at: int, kept: int, number: signal.Signals
) -> None:
    def stop(training: VQATraining, *_: object) -> None:
        if training.global_step == at:
            signal.raise_signal(number)

    whole, stopped, resumed = (tmp_path / name for name in ("whole", "stopped", "resumed"))
    tiny.train(whole, *EVERY_STEP)
    with stoppable(), watched(VQATraining, hook, stop):
        begin_work(str)
        with pytest.raises(Stopped):
            tiny.train(stopped, *EVERY_STEP)
    assert checkpoint_of(stopped)["global_step"] == kept
    tiny.train(resumed, *EVERY_STEP, f"resume={stopped}")
    for name in ("best", "last"):
        assert_same_weights(weights_of(resumed, name), weights_of(whole, name))
        assert checkpoint_of(resumed, name)["global_step"] == checkpoint_of(whole, name)["global_step"]
    assert logged(stopped, resumed) == logged(whole)
