"""Signals end a process by one rule."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from clipmapper.process import stopping
from clipmapper.process.stopping import Stopped, begin_work, check, defer, stoppable

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGUSR1: 143}


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """Handle signals as in a terminal, also if these tests run under nohup, which ignores SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_and_has_its_exit_status(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stoppable():
        begin_work(str)
        with pytest.raises(Stopped) as stop:
            signal.raise_signal(number)
        assert stop.value.status == SIGNALS[number]
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert not stopping.is_asked()


def test_a_deferred_signal_is_raised_at_the_next_check() -> None:
    with stoppable():
        begin_work(str)
        defer(True)
        check()
        signal.raise_signal(signal.SIGTERM)
        assert stopping.is_asked()
        check()
        defer(False)
        with pytest.raises(Stopped):
            check()


def test_a_signal_that_is_sent_to_a_process_and_to_its_group_counts_once() -> None:
    with stoppable():
        begin_work(str)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # a second one would end this process


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stoppable():
            begin_work(str)
            signal.raise_signal(signal.SIGHUP)
            assert not stopping.is_asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def ended(code: str, *numbers: signal.Signals) -> tuple[int, str]:
    """Run code that prints a line before each signal that it gets; return the exit status and what it printed."""
    head = "import time\nfrom clipmapper.process.stopping import *\n"
    with subprocess.Popen(
        [sys.executable, "-c", head + code], stdout=-1, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for number in numbers:
            process.stdout.readline()
            process.send_signal(number)
            time.sleep(0.3)
        out = process.communicate(timeout=60)[0]
    return process.returncode, out


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_work_begins_the_process_ends_in_one_line(number: signal.Signals) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    waiting = "with stoppable():\n print(1, flush=True)\n time.sleep(60)"
    assert ended(waiting, number) == (SIGNALS[number], f"stopped by {name}: nothing was begun\n")


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = "with stoppable():\n begin_work(lambda stop: f'kept after {stop.name}')\n defer(True)\n"
    code += " print(1, flush=True)\n time.sleep(1)\n print(2, flush=True)\n time.sleep(60)\n"
    started = time.monotonic()
    assert ended(code, signal.SIGINT, signal.SIGINT) == (130, "kept after Ctrl-C\n")
    assert time.monotonic() - started < 30


# A lock of the C library that is locked twice: the main thread runs no Python again, and signals do not end the call.
BLOCKED = """
import ctypes, math, threading
from clipmapper.process import stopping
stopping._PATIENCE = 1.0
library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with stoppable():
    begin_work(lambda stop: f"kept after {{stop.name}}")
    defer({deferring}, {patience})
    threading.Timer(0.5, print, [{said}], {{"flush": True}}).start()
    library.pthread_mutex_lock(lock)
    library.pthread_mutex_lock(lock)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a lock of zeros is one of Linux")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("deferring", "patience"), [(False, "math.inf"), pytest.param(True, "1.0", marks=pytest.mark.slow)]
)
def test_a_process_ends_also_while_it_waits_in_a_library(
    number: signal.Signals, deferring: bool, patience: str
) -> None:
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    started = time.monotonic()
    code = BLOCKED.format(deferring=deferring, patience=patience, said=1)
    assert ended(code, number) == (SIGNALS[number], f"kept after {name}\n")
    assert time.monotonic() - started < 30


@pytest.mark.skipif(sys.platform != "linux", reason="a lock of zeros is one of Linux")
def test_a_second_signal_ends_a_process_that_waits_in_a_library() -> None:
    code = BLOCKED.format(deferring=True, patience="math.inf", said="'1\\n2'")
    assert ended(code, signal.SIGINT, signal.SIGTERM) == (130, "kept after Ctrl-C\n")


def test_a_signal_that_waits_ends_nothing_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_PATIENCE", 0.1)
    with stoppable():
        begin_work(str)
        defer(True, 0.1)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert stopping.is_asked()


def test_a_fork_does_not_tell_its_signals_to_its_parent() -> None:
    code = "import os\nwith stoppable():\n begin_work(str)\n defer(True)\n fork = os.fork()\n"
    code += " if not fork:\n  time.sleep(30)\n  os._exit(0)\n"
    code += " time.sleep(0.3)\n os.kill(fork, 15)\n os.waitpid(fork, 0)\n time.sleep(0.3)\n"
    code += " os.kill(os.getpid(), 2)\n time.sleep(0.3)\n print(1)\n"  # ends the process if it is the second signal
    assert ended(code) == (0, "1\n")


def test_a_process_of_a_run_leaves_ctrl_c_to_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stopping.PARENT, "1")
    with stoppable():
        begin_work(str)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
