"""Jobs that Slurm signals before their time limit: they are requeued, and go on in the same folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killed_runs import killed_at
from tiny_runs import PROJECT, Tiny, checkpoint_of, weights_of

from clipmapper.cli import resumed
from clipmapper.config.run_folder import may_write
from clipmapper.process import requeue, stopping
from clipmapper.tasks.vqa.training import VQATraining

STUBS = PROJECT / "tests" / "helpers" / "slurm"
Command = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("resume", ["auto", None])
@pytest.mark.parametrize("array", [True, False])
def test_only_slurm_s_signal_and_resume_auto_requeue_the_job(
    number: signal.Signals, resume: str | None, array: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{STUBS}:{os.environ['PATH']}")
    monkeypatch.setenv("STUB_SLURM", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")

    def stop() -> None:
        with stopping.stoppable(), requeue.requeued(resume):
            stopping.begin_work(lambda stop: "")
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises(stopping.Stopped):
        stop()
    asked = resume == "auto" and number == signal.SIGUSR1
    assert [path.name for path in tmp_path.iterdir()] == ([f"requeue-{'70_7' if array else '77'}"] if asked else [])


def test_resume_auto_needs_a_folder_with_a_given_name(command: Command, tmp_path: Path) -> None:
    for name in ("train", "perturb"):
        status, _, errors = command(name, f"paths.root={tmp_path}", "resume=auto")
        assert status == 1
        assert errors[0].startswith("error: resume=auto: give hydra.run.dir=FOLDER (in a sweep hydra.sweep.subdir)")


def test_resume_auto_starts_anew_before_the_first_checkpoint(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with killed_at(VQATraining, 2):
        tiny.train(run)
    assert may_write(run, "auto", []) is False
    keys = [*tiny.overrides, "resume=auto", f"hydra.run.dir={run}"]
    assert command("train", *keys)[0] == 0
    assert checkpoint_of(run)["global_step"] == 8
    assert resumed("runs/x", run, "identity.json") == "runs/x"


@pytest.mark.slow
def test_a_requeued_job_of_two_processes_loses_nothing(tiny: Tiny, tmp_path: Path) -> None:
    steps = ("trainer.max_steps=400", "trainer.val_check_interval=200", "trainer.log_every_n_steps=1")
    adam = (*steps, "task.optim.name=adam", "task.optim.lr=1.0e-5")
    tiny.train(tmp_path / "whole", *adam)
    run, script = tmp_path / "run", tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n#SBATCH --ntasks-per-node=2\n#SBATCH --signal=USR1@60\n#SBATCH --output=job.out\n"
        f'srun clipmapper train "$@" resume=auto hydra.run.dir={run}\n'
    )
    path = f"{STUBS}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "STUB_SLURM": str(tmp_path), "CLIPMAPPER_TRACE": "0"}
    line = ["sbatch", str(script), *tiny.overrides, *adam]
    subprocess.run(line, check=True, env=environment, cwd=tmp_path, capture_output=True)
    wait_for(run / "log" / "metrics.csv")
    (tmp_path / "limit-1000").touch()
    wait_for(tmp_path / "done-1000")
    said = (tmp_path / "job.out").read_text()
    assert (tmp_path / "status-1000").read_text() == "143\n0\n", said
    assert said.count("stopped by SIGUSR1: train; its state is in ") == said.count("is requeued") == 1
    for name, tensor in weights_of(run).items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "whole")[name], rtol=1e-3, atol=1e-4)
    assert checkpoint_of(run)["global_step"] == 400


def wait_for(path: Path) -> None:
    until = time.monotonic() + 400
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.1)
