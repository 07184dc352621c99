"""Settings of trainings that are longer than a job or larger than a device."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from killed_runs import killed_at
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, weights_of
from watching import watched

from clipmapper.tasks.vqa.training import VQATraining

EXACT = ("task.optim.name=adam", "mapper.dropout=0.1")


def test_two_batches_a_step_train_as_one_of_twice_the_size(tiny: Tiny, tmp_path: Path) -> None:
    plain = ("task.optim.name=adam", "mapper.dropout=0")  # of dropout, every batch has its own draw
    tiny.train(tmp_path / "one", *plain, "task.optim.batch_size=32")
    tiny.train(tmp_path / "two", *plain, "task.optim.batch_size=16", "trainer.accumulate_grad_batches=2")
    expected = weights_of(tmp_path / "one")
    for name, tensor in weights_of(tmp_path / "two").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=2e-5)
    assert checkpoint_of(tmp_path / "two")["global_step"] == 8


@pytest.mark.parametrize("several", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_killed_between_validations_goes_on_from_the_checkpoint_between_them(
    tiny: Tiny, tmp_path: Path, several: int
) -> None:
    steps = (*EXACT, "trainer.val_check_interval=8", f"trainer.accumulate_grad_batches={several}")
    saved = (*steps, "trainer.checkpoint_every_steps=3")
    tiny.train(tmp_path / "whole", *steps)
    with killed_at(VQATraining, 5):
        tiny.train(tmp_path / "killed", *saved)
    assert checkpoint_of(tmp_path / "killed")["global_step"] == 3
    tiny.train(tmp_path / "resumed", *saved, f"resume={tmp_path / 'killed'}")
    for name in ("best", "last"):
        assert_same_weights(weights_of(tmp_path / "resumed", name), weights_of(tmp_path / "whole", name))


def test_a_checkpoint_is_written_after_some_minutes(tiny: Tiny, tmp_path: Path) -> None:
    with killed_at(VQATraining, 3):
        tiny.train(
            tmp_path / "run", "trainer.val_check_interval=8", "trainer.checkpoint_every_minutes=1.0e-9", "seed=1"
        )
    assert checkpoint_of(tmp_path / "run")["global_step"] == 3


@pytest.mark.slow
def test_a_training_ends_at_its_greatest_time_in_all_its_jobs_and_can_go_on(tiny: Tiny, tmp_path: Path) -> None:
    steps = (*EXACT, "trainer.max_steps=8", "trainer.val_check_interval=2")
    tiny.train(tmp_path / "whole", *steps)
    with watched(VQATraining, "training_step", lambda *_: time.sleep(0.25)):
        metrics = tiny.train(tmp_path / "short", *steps, "trainer.max_time=00:00:00:01")
    assert metrics["val"]["questions"] > 0
    made = checkpoint_of(tmp_path / "short")["global_step"]
    assert 0 < made < 8
    keys = (*steps, f"resume={tmp_path / 'short'}")
    with watched(VQATraining, "training_step", lambda *_: pytest.fail("a step after the greatest time")):
        assert tiny.train(tmp_path / "again", *keys, "trainer.max_time=00:00:00:01") == metrics
    assert checkpoint_of(tmp_path / "again")["global_step"] == made
    tiny.train(tmp_path / "resumed", *keys)
    assert_same_weights(weights_of(tmp_path / "resumed"), weights_of(tmp_path / "whole"))


def test_other_processes_read_the_same_batches(tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "one", *EXACT)
    tiny.train(tmp_path / "two", *EXACT, "trainer.num_workers=1")
    assert_same_weights(weights_of(tmp_path / "two"), weights_of(tmp_path / "one"))
