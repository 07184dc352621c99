"""Jobs that Slurm signals before their time limit: they are requeued, and go on in the same folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_runs import killed_at
from perturb_runs import Trained, results
from slurm_jobs import STUBS, logs_of, scripts_of_the_page, submit, wait_for
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, weights_of
from two_processes import steps_of_last_job

from clipmapper.cli import resumed
from clipmapper.config.run_folder import may_write
from clipmapper.process import requeue, stopping
from clipmapper.tasks.vqa.training import VQATraining

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
    assert may_write(run, "auto", None) is False
    keys = [*tiny.overrides, "resume=auto", f"hydra.run.dir={run}"]
    assert command("train", *keys)[0] == 0
    assert checkpoint_of(run)["global_step"] == 8
    assert resumed("runs/x", run, "identity.json") == "runs/x"


LONG = ("trainer.max_steps=200", "trainer.val_check_interval=100", "trainer.log_every_n_steps=1")
ADAM = (*LONG, "task.optim.name=adam", "task.optim.lr=1.0e-5")


@pytest.fixture(scope="module")
def unbroken(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a training with two processes that nothing stops."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    line = [str(STUBS / "srun"), "--ntasks=2", "clipmapper", "train", *tiny.overrides, *ADAM, f"hydra.run.dir={run}"]
    environment = {**os.environ, "SLURM_JOB_ID": "4321", "CLIPMAPPER_TRACE": "0"}
    subprocess.run(line, check=True, env=environment, capture_output=True, timeout=500)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("end", ["limit", "death"])
def test_the_page_s_job_of_two_processes_loses_nothing(end: str, tiny: Tiny, unbroken: Path, tmp_path: Path) -> None:
    train, _ = scripts_of_the_page()
    run = tmp_path / "run"
    keys = [*tiny.overrides, *ADAM, "trainer.checkpoint_every_steps=20", "trainer.profiler=simple"]
    submit(train, keys, tmp_path, run, "--ntasks-per-node=2")
    wait_for(run / "checkpoints" / "last.ckpt")
    (tmp_path / f"{end}-1000").touch()
    wait_for(tmp_path / "done-1000")
    said = logs_of(tmp_path)
    assert (tmp_path / "status-1000").read_text() == ("143\n0\n" if end == "limit" else "-9\n0\n"), said
    stops = [said.count(line) for line in ("stopped by SIGUSR1: train; its state is in ", "is requeued")]
    assert stops == ([1, 1] if end == "limit" else [0, 0])
    assert 0 < steps_of_last_job(run) < 200
    assert_same_weights(weights_of(run), weights_of(unbroken))
    assert checkpoint_of(run)["global_step"] == 200


@pytest.mark.slow
def test_a_shard_that_is_stopped_at_its_time_limit_goes_on_in_the_queue(trained: Trained, tmp_path: Path) -> None:
    _, shards = scripts_of_the_page()
    run, keys = tmp_path / "run", ("samples=40", "batch_samples=2")  # ten parts in each of two shards
    submit(shards, [*trained.overrides, *keys, "explainer=weighted"], tmp_path, run, "--array=1-2", SHARDS="2")
    wait_for(run / "parts" / "part-000000.samples.parquet")
    (tmp_path / "limit-1000_1").touch()
    wait_for(tmp_path / "done-1000")
    said = logs_of(tmp_path)
    assert [(tmp_path / f"status-1000_{task}").read_text() for task in (1, 2)] == ["143\n0\n", "0\n"], said
    assert said.count("stopped by SIGUSR1: perturb; its state is in ") == said.count("is requeued") == 1
    assert "job 1000_1 is requeued" in said
    found = re.findall(r"(\d+) of 10 parts are finished; (\d+) are computed", said)
    assert len(found) == 1
    assert 0 < int(found[0][0]) < 10
    trained.perturb(tmp_path / "one", *keys)
    assert results(run) == results(tmp_path / "one")


@pytest.mark.slow
def test_a_sweep_on_slurm_waits_for_a_job_that_is_requeued_once(tiny: Tiny, unbroken: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    keys = [*tiny.overrides, *ADAM, "trainer=ddp", "seed=0,1", "resume=auto", f"hydra.sweep.dir={runs}"]
    keys += ["hydra.sweep.subdir=${hydra.job.num}", "hydra/launcher=submitit_slurm", "trainer.profiler=simple"]
    environment = {**os.environ, "STUB_SLURM": str(tmp_path), "PATH": f"{STUBS}:{os.environ['PATH']}"}
    line = ["clipmapper", "train", "--multirun", *keys]
    sweep = subprocess.Popen(line, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(runs / "0" / "log" / "metrics.csv")
    (tmp_path / "limit-1000_0").touch()
    _, errors = sweep.communicate(timeout=500)
    wait_for(tmp_path / "done-1000")
    said = "".join(path.read_text() for path in sorted((runs / ".submitit").rglob("*.err")))
    assert sweep.returncode == 0, errors + said
    starts = [(tmp_path / f"status-1000_{number}").read_text() for number in (0, 1)]
    assert starts == ["143\n0\n", "0\n"]
    assert said.count("stopped by SIGUSR2: train; its state is in ") == said.count("job 1000_0 is requeued") == 1
    assert checkpoint_of(runs / "1")["global_step"] == 200
    assert 0 < steps_of_last_job(runs / "0") < 200
    assert_same_weights(weights_of(runs / "0"), weights_of(unbroken))
