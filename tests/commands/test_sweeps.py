"""Sweeps by all launchers of one machine: failed jobs are named at the end, and a signal ends the jobs in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import LINUX, end_soon, lives
from tiny_runs import PROJECT

STUBS = PROJECT / "tests" / "helpers" / "slurm"
PLUGINS = {"basic": "hydra", "joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "submitit"}
# A command with jobs that say that they run, and wait; one fails, if a file says so.
COMMAND = """
import sys
from pathlib import Path

from clipmapper.process import stopping

if __name__ == "__main__":
    with stopping.stoppable():
        from clipmapper.cli import command

        def job(config, run):
            import os
            import signal
            import time
            from clipmapper.errors import UserError
            root = Path(config.paths.root)
            if root.name == "bad":
                raise UserError("this job fails; give it up")
            if root.name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            (run / f"process-{os.getpid()}").touch()
            while not root.name == "good":
                time.sleep(0.1)

        command("report")(job)()
"""
# Read by every Python at its start: a job of Slurm runs on another machine than the sweep.
ELSEWHERE = """
import os
import platform

if "SLURM_JOB_ID" in os.environ:
    platform.node = lambda: "node-7"
"""
SLOW = pytest.mark.slow


def launched(launcher: str, folder: Path, *roots: str, programs: Path = STUBS) -> subprocess.Popen[str]:
    """Start a sweep over values of ``paths.root`` in a process group of its own."""
    plugin = PLUGINS.get(launcher, "submitit")
    if find_spec(plugin.partition(".")[0]) is None or find_spec(plugin) is None:
        pytest.skip(f"Hydra's launcher {launcher} is not installed")
    script = folder / "report.py"
    script.write_text(COMMAND)
    values = [f"paths.root={','.join(str(folder / each) for each in roots)}", f"paths.runs={folder / 'runs'}"]
    line = [sys.executable, str(script), "--multirun", f"hydra/launcher={launcher}", *values]
    options = {"joblib": "n_jobs=2", "submitit_slurm": f"submitit_folder={folder / 'jobs'}"}
    more = [f"hydra.launcher.{options[launcher]}"] if launcher in options else []
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "sitecustomize.py").write_text(ELSEWHERE)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder / 'elsewhere'}:{PROJECT}",
        "CLIPMAPPER_TRACE": "0",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STUB_SLURM": str(folder),
    }
    return subprocess.Popen(
        [*line, *more, f"hydra.sweep.dir={folder / 'runs'}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running(folder: Path, count: int) -> list[int]:
    """Wait for jobs; return their processes."""
    until = time.monotonic() + 120
    while len(found := list(folder.rglob("process-*"))) < count and time.monotonic() < until:
        time.sleep(0.05)
    return [int(path.name.partition("-")[2]) for path in found]


def lines_of(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if " is running: " not in line]


@pytest.mark.parametrize("launcher", [pytest.param(name, marks=SLOW) for name in (*PLUGINS, "submitit_slurm")])
def test_the_other_jobs_run_when_some_fail(launcher: str, tmp_path: Path) -> None:
    process = launched(launcher, tmp_path, "bad", "good", "other/bad")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert len(list(tmp_path.rglob("process-*"))) == 1
    last = lines_of(err)[-1]
    assert last.startswith("error: 2 jobs of the sweep failed: number 0 (paths.root=")
    assert "; number 2 (paths.root=" in last
    said = [line for line in lines_of(err) if line == "error: this job fails; give it up"]
    assert len(said) == (0 if launcher.startswith("submitit") else 2)  # submitit writes into a file for each job
    assert len(lines_of(err)) == 1 + len(said)
    assert not list((tmp_path / "runs").glob(".failed*"))


@SLOW
@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
def test_the_other_jobs_run_when_one_is_killed(launcher: str, tmp_path: Path) -> None:
    process = launched(launcher, tmp_path, "killed", "good", "bad")
    _, err = process.communicate(timeout=200)
    assert (process.returncode, len(lines_of(err))) == (1, 1), err
    assert len(list(tmp_path.rglob("process-*"))) == 1
    said, first, second = lines_of(err)[0].replace("'", "").split("number ")
    assert said == "error: 2 jobs of the sweep failed: "
    assert first.startswith(f"0 (paths.root={tmp_path / 'killed'},paths.runs={tmp_path / 'runs'}) has ended without a ")
    assert first.endswith("; ")
    assert second.startswith(f"2 (paths.root={tmp_path / 'bad'},paths.runs={tmp_path / 'runs'}), log: ")
    logs = [Path(each.removesuffix("; ").split(", log: ")[1]) for each in (first, second)]
    assert logs[0].is_file()
    assert "error: this job fails; give it up" in logs[1].read_text()


@SLOW
@pytest.mark.parametrize("refuses", [False, True])
def test_jobs_that_cannot_be_submitted_are_one_line(refuses: bool, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if refuses:
        (programs / "srun").symlink_to(STUBS / "srun")
        (programs / "sbatch").write_text("#!/bin/sh\necho sbatch: error: invalid partition: night >&2\nexit 1\n")
        (programs / "sbatch").chmod(0o755)
    process = launched("submitit_slurm", tmp_path, "good", "good", programs=programs)
    _, err = process.communicate(timeout=100)
    said = [line for line in lines_of(err) if not line.startswith("sbatch: ")]
    assert (process.returncode, len(said)) == (1, 1), err
    assert said[0].startswith("error: the jobs of the sweep cannot be submitted: ")
    assert ("invalid partition: night; run" if refuses else 'Could not detect "srun"') in said[0]


@SLOW
def test_a_job_of_slurm_that_cannot_go_on_after_its_time_limit_is_named(tmp_path: Path) -> None:
    process = launched("submitit_slurm", tmp_path, "forever", "good")
    running(tmp_path, 1)
    (tmp_path / "limit-1000_0").touch()
    _, err = process.communicate(timeout=200)
    assert (process.returncode, len(lines_of(err))) == (1, 1), err
    assert lines_of(err)[0].startswith("error: 1 jobs of the sweep failed: number 0 (paths.root=")
    assert " has ended without a result, log: " in lines_of(err)[0]
    assert not list(tmp_path.glob("requeue-*"))
    log = Path(lines_of(err)[0].split(", log: ")[1])
    assert log.read_text().count("stopped by SIGUSR2: report; nothing is kept; run the same command again: ") == 1
    assert len(list(tmp_path.rglob("process-*"))) == 2  # the other job ran


@SLOW
def test_a_killed_job_of_joblib_is_one_line(tmp_path: Path) -> None:
    process = launched("joblib", tmp_path, "killed", "forever", "good")
    _, err = process.communicate(timeout=200)
    assert (process.returncode, len(lines_of(err))) == (1, 1), err
    start = "error: a job of the sweep was killed, and joblib ended all that ran: number 0 (paths.root="
    assert lines_of(err)[0].startswith(start)


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
@pytest.mark.parametrize("launcher", [name if name == "basic" else pytest.param(name, marks=SLOW) for name in PLUGINS])
def test_a_signal_ends_a_sweep_with_its_jobs_in_one_line(launcher: str, number: signal.Signals, tmp_path: Path) -> None:
    process = launched(launcher, tmp_path, "first", "second")
    jobs = running(tmp_path, 1 if launcher == "basic" else 2)
    if number == signal.SIGINT:  # as in a terminal
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert len(lines_of(err)) == 1, err
    if launcher == "basic":
        assert lines_of(err)[0].startswith(f"stopped by {name}: report; ")
        assert lines_of(err)[0].endswith("; the jobs of the sweep after this one were not begun")
    else:
        assert lines_of(err)[0].startswith(
            f"stopped by {name}: the sweep of report; jobs that were stopped: number 0 ("
        )
        assert "; number 1 (" in lines_of(err)[0]
    assert end_soon(jobs)


@LINUX
@SLOW
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_the_jobs_of_a_killed_sweep_end(launcher: str, tmp_path: Path) -> None:
    process = launched(launcher, tmp_path, "first", "second")
    jobs = running(tmp_path, 2)
    assert all(map(lives, jobs))
    process.kill()
    process.wait()
    assert end_soon(jobs)
