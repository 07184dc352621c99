"""Perturbation runs killed and taken up, or in two processes: the same bytes in the end."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from perturb_runs import Trained, results
from tiny_runs import finish, start

from clipmapper.errors import UserError
from perturbation.perturb import lightning as module
from perturbation.perturb import vqa as questions
from perturbation.perturb.identity import identify


class Killed(BaseException):
    """Nothing catches it but the test."""


def no_merge(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize(("parts", "in_place"), [(0, True), (1, True), (1, False), (2, False)])
def test_a_killed_run_ends_with_the_same_bytes(
    trained: Trained, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, in_place: bool
) -> None:
    stopped, resumed = tmp_path / "stopped", tmp_path / ("stopped" if in_place else "resumed")
    written: list[int] = []
    original = module.write_part

    def dying(run: Path, number: int, tables: Any) -> None:
        if len(written) == parts:
            raise Killed
        original(run, number, tables)
        written.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_part", dying)
        patch.setattr("perturbation.perturb.run.merge", no_merge)
        with pytest.raises(Killed):
            trained.perturb(stopped, "ceiling.samples=4")
    assert not (stopped / "perturbation.json").exists()
    monkeypatch.setattr(module, "write_part", lambda *a: (written.append(a[1]), original(*a)))
    trained.perturb(resumed, "ceiling.samples=4", *(() if in_place else (f"resume={stopped}",)))
    assert sorted(written) == [0, 1]  # nothing was done twice
    assert results(resumed) == results(whole)


def test_the_engine_s_batch_is_measured_once(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(questions, "fastest", lambda *_: sizes.append(1) or 64)
    small = ("engine_batch=null", "samples=2", "modality=[text]", "faithfulness=false")
    trained.perturb(tmp_path / "one", *small)
    assert json.loads((tmp_path / "one" / "engine.json").read_text()) == {"engine_batch": 64}
    trained.perturb(tmp_path / "two", *small, f"resume={tmp_path / 'one'}")
    assert sizes == [1]
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_another_config_is_not_resumed(trained: Trained, whole: Path, tmp_path: Path) -> None:
    for override, named in (
        ("steps=chefer", "steps"),
        ("seed=1", "questions|seed"),
        ("removal.text=drop", "removal.text"),
    ):
        with pytest.raises(UserError, match=f"holds a run with .*({named})"):
            trained.perturb(tmp_path, "ceiling.samples=4", override, f"resume={whole}")
    with pytest.raises(UserError, match="explainers"):
        trained.perturb(tmp_path, "ceiling.samples=4", f"resume={whole}", explainer="genatt")
    assert list(tmp_path.glob("parts/*")) == []


def test_what_only_training_reads_makes_no_other_run(trained: Trained) -> None:
    usual, other = (trained.config(*more) for more in ((), ("task.steps=9", "task.validate_every=3")))
    assert usual.task != other.task
    assert identify(usual, {}, {}, trained.checkpoint, {}) == identify(other, {}, {}, trained.checkpoint, {})


@pytest.mark.slow
def test_two_processes_write_the_same_files(trained: Trained, whole: Path, tmp_path: Path) -> None:
    arguments = [*trained.overrides, "ceiling.samples=4", "trainer.devices=2", "trainer.strategy=ddp"]
    status, _, err = finish("perturb", [*arguments, f"hydra.run.dir={tmp_path}"])
    assert status == 0, err
    assert results(tmp_path) == results(whole)


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_with_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    arguments = [*trained.overrides, "samples=24", "batch_samples=2"]
    stopped = tmp_path / "stopped"
    process = start("perturb", [*arguments, f"hydra.run.dir={stopped}"])
    while len(list(stopped.glob("parts/*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (stopped / "perturbation.json").exists()
    for folder, resume in (("resumed", [f"resume={stopped}"]), ("whole", [])):
        status, _, err = finish("perturb", [*arguments, *resume, f"hydra.run.dir={tmp_path / folder}"])
        assert status == 0, err
    assert results(tmp_path / "resumed") == results(tmp_path / "whole")
