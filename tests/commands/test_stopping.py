"""A signal ends every command by one rule, and a failed job does not end a sweep."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained
from processes import LINUX, lives
from tiny_runs import PROJECT, Tiny, assert_same_weights, checkpoint_of, finish, script, start, weights_of

from perturbation.cli import COMMANDS, run

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
SLOW = pytest.mark.slow
Command = Callable[..., tuple[int, str, list[str]]]


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, list[str]]:
    """Send a signal; return the exit status and the lines on stderr, without those about the progress."""
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, [line for line in err.splitlines() if " is running: " not in line]


@pytest.mark.parametrize("name", [path.stem for path in (PROJECT / "scripts").glob("*.py")])
def test_every_script_handles_signals(name: str) -> None:
    main = script(name).main
    assert (main.func, main.args) == (run, (name,))


def test_ctrl_c_ends_in_one_line_while_the_rule_for_signals_is_imported() -> None:
    code = "import os, signal, sys, runpy\nclass Press:\n def find_spec(self, name, *rest):\n"
    code += "  if name == 'clipmapper.process.stopping': os.kill(os.getpid(), signal.SIGINT)\n"
    code += "sys.meta_path.insert(0, Press())\nsys.argv = ['scripts/report.py', '--help']\n"
    code += "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "stopped by Ctrl-C: nothing was begun\n")


def test_little_is_imported_before() -> None:
    code = "import sys; before = {*sys.modules}; import perturbation.cli; print(*{*sys.modules} - before)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True).stdout
    assert {name for name in found.split() if name.partition(".")[0] in ("clipmapper", "explain", "hydra")} == set()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(number, marks=SLOW) for number in (signal.SIGTERM, signal.SIGHUP))]
)
@pytest.mark.parametrize(
    "name", [name if name in ("train", "report") else pytest.param(name, marks=SLOW) for name in COMMANDS]
)
def test_every_command_ends_in_one_line(name: str, number: signal.Signals, tmp_path: Path) -> None:
    more = ["runs=[a,b]"] if name == "pool_seeds" else []
    code = f"import sys; sys.argv = ['scripts/{name}.py', *{[f'paths.root={tmp_path}', *more]}]\n"
    code += "import runpy\nfrom clipmapper.process import stopping\nbegin = stopping.begin_work\n"
    code += "def wait(ending):\n begin(ending)\n print('ready', flush=True)\n import time\n time.sleep(99)\n"
    code += "stopping.begin_work = wait\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    line = [sys.executable, "-c", code]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("run folder: ")
    assert process.stdout.readline() == "ready\n"
    status, lines = stopped(process, number)
    assert status == STATUS[number]
    said = f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}: {name}; nothing is kept; "
    assert len(lines) == 1
    assert lines[0].startswith(f"{said}run the same command again: python scripts/{name}.py paths.root=")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@SLOW
@pytest.mark.parametrize("number", STATUS)
def test_a_stopped_training_says_how_to_go_on(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    steps = ("trainer.max_steps=400", "trainer.val_check_interval=200", "trainer.log_every_n_steps=1")
    tiny.train(tmp_path / "whole", *steps)
    run = tmp_path / "run"
    process = start("train", [*tiny.overrides, *steps, f"paths.runs={tmp_path}", f"hydra.run.dir={run}"])
    until = time.monotonic() + 120
    while not (run / "log" / "metrics.csv").exists() and time.monotonic() < until:
        time.sleep(0.1)
    status, lines = stopped(process, number)
    assert status == STATUS[number]
    found = re.fullmatch(r"stopped by \S+: train; its state is in (\S+); to go on: python (.*)", lines[0])
    assert found is not None, lines
    done = subprocess.run([sys.executable, *shlex.split(found[2])], capture_output=True, text=True, check=True)
    resumed = Path(done.stdout.splitlines()[0].removeprefix("run folder: "))
    for name in ("best", "last"):
        assert_same_weights(weights_of(resumed, name), weights_of(tmp_path / "whole", name))


DDP = ("trainer.devices=2", "trainer.strategy=ddp")
STEPS = ("trainer.max_steps=300", "trainer.val_check_interval=150", "trainer.log_every_n_steps=1")


def started_ddp(tiny: Tiny, run: Path, *more: str) -> tuple[subprocess.Popen[str], int]:
    """Start a training in two processes; return it after its first steps, with the id of the second process."""
    process = start("train", [*tiny.overrides, *STEPS, *DDP, *more, f"hydra.run.dir={run}"])
    until = time.monotonic() + 200
    while not (run / "log" / "metrics.csv").exists() and time.monotonic() < until:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    return process, int(children[0])


@SLOW
@LINUX
def test_processes_of_a_training_stop_at_the_same_step_and_go_on(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, second = started_ddp(tiny, run)
    os.kill(second, signal.SIGTERM)  # the first process is told by the second one
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    lines = [line for line in err.splitlines() if " is running: " not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"stopped by SIGTERM: train; its state is in {run}; to go on: ")
    assert 0 < checkpoint_of(run)["global_step"] < 300
    assert not lives(second)
    for folder, resume in (("resumed", [f"resume={run}"]), ("whole", [])):
        line = [*tiny.overrides, *STEPS, *DDP, *resume, f"hydra.run.dir={tmp_path / folder}"]
        status, _, errors = finish("train", line)
        assert status == 0, errors
    for name in ("best", "last"):
        assert_same_weights(weights_of(tmp_path / "resumed", name), weights_of(tmp_path / "whole", name))


@SLOW
@LINUX
def test_ctrl_c_ends_a_training_whose_other_process_does_not_answer(tiny: Tiny, tmp_path: Path) -> None:
    process, second = started_ddp(
        tiny, tmp_path / "run", "trainer.max_steps=100000", "trainer.val_check_interval=50000"
    )
    os.kill(second, signal.SIGSTOP)
    time.sleep(1.0)
    begin = time.monotonic()
    status, lines = stopped(process, signal.SIGINT)
    assert time.monotonic() - begin < 20
    assert status == 130
    assert len(lines) == 1
    assert lines[0].startswith("stopped by Ctrl-C: train; ")
    assert not lives(second)


@SLOW
@LINUX
def test_the_death_of_a_process_of_a_training_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    process, second = started_ddp(tiny, tmp_path / "run")
    os.kill(second, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    lines = [line for line in err.splitlines() if " is running: " not in line]
    assert process.returncode == 1
    assert len(lines) == 1
    assert lines[0].startswith("error: rank 1 of the distributed run was killed (SIGKILL), so all its processes were ")


@SLOW
def test_a_stopped_perturbation_run_says_how_to_go_on(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("perturb", [*trained.overrides, "samples=20", "batch_samples=1", f"hydra.run.dir={run}"])
    until = time.monotonic() + 120
    while not list(run.glob("parts/*.samples.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    status, lines = stopped(process, signal.SIGTERM)
    assert status == 143
    assert re.fullmatch(rf"stopped by SIGTERM: perturb; its state is in {run}; to go on: .* resume={run}", lines[-1])


def test_a_failed_job_does_not_end_a_sweep(command: Command, tmp_path: Path) -> None:
    roots = (tmp_path / "none", tmp_path / "neither")
    found = "paths.root=" + ",".join(map(str, roots))
    status, out, errors = command("pool_seeds", "--multirun", "runs=[missing]", found, f"paths.runs={tmp_path}")
    assert status == 1
    assert out.count("run folder: ") == 2
    assert len(errors) == 3
    assert errors[-1].startswith("error: 2 jobs of the sweep failed: number 0 (")
    for root in roots:
        assert str(root) in errors[-1]
