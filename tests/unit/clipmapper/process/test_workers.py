"""Processes that a process starts end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import LINUX, end_soon, lives

from clipmapper.errors import UserError
from clipmapper.process.workers import Watched, end_with_thread, pool

HEAD = "import os, subprocess, sys, time\nfrom clipmapper.process.workers import *\n"
STARTS = {
    "pool": "with pool(2) as p:\n [p.submit(time.sleep, 99) for _ in range(2)]\n time.sleep(1)\n"
    " print(*(c.pid for c in active_children()), flush=True)\n time.sleep(99)",
    "program": "p = subprocess.Popen(['sleep', '99'], preexec_fn=end_with_thread)\n"
    "print(p.pid, flush=True)\ntime.sleep(99)",
    "process of a run": "from clipmapper.process.stopping import PARENT\n"
    "code = 'import time; from clipmapper.process.workers import *; follow_parent(); print(1, flush=True);'\n"
    "code += 'time.sleep(99)'\n"
    "p = subprocess.Popen([sys.executable, '-c', code], env={**os.environ, PARENT: str(os.getpid())}, stdout=-1)\n"
    "p.stdout.readline()\nprint(p.pid, flush=True)\ntime.sleep(99)",
}


@LINUX
@pytest.mark.parametrize("start", STARTS)
def test_they_end_when_their_parent_is_killed(start: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HEAD + STARTS[start]], stdout=-1, text=True) as parent:
        assert parent.stdout is not None
        children = [int(each) for each in parent.stdout.readline().split()]
        assert children
        assert all(map(lives, children))
        parent.kill()
    assert end_soon(children)


def test_a_pool_ends_at_once_after_an_error() -> None:
    begin = time.monotonic()

    def fail() -> None:
        with pool(1) as workers:
            for _ in range(5):
                workers.submit(time.sleep, 20)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert time.monotonic() - begin < 15


def test_a_killed_worker_is_a_user_error() -> None:
    with pytest.raises(UserError, match="a worker process was killed"), pool(1) as workers:
        workers.submit(os._exit, 9).result()


@pytest.mark.parametrize(
    ("code", "written", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", None, "rank 1 of the distributed run was killed (SIGKILL), "),
        ("raise SystemExit(3)", None, "rank 1 of the distributed run ended with status 3, "),
        ("raise SystemExit(1)", "data.json: not there; give it", "data.json: not there; give it"),
    ],
)
def test_the_death_of_a_process_is_named(code: str, written: str | None, said: str) -> None:
    lines = Path(tempfile.mkdtemp())
    if written:
        (lines / "rank 1").write_text(written)
    ranks = {
        "rank 1": subprocess.Popen([sys.executable, "-c", code]),
        "rank 2": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"]),
    }
    watched = Watched(ranks, lines)
    found = watched.death(30.0)
    assert found is not None
    assert found.startswith(said)
    watched.end()
    assert ranks["rank 2"].wait(10) == -signal.SIGKILL
    assert not lines.exists()


def test_a_program_runs_as_usual() -> None:
    done = subprocess.run(["echo", "1"], preexec_fn=end_with_thread, capture_output=True, check=True)
    assert done.stdout == b"1\n"
