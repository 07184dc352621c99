"""Ending by a signal, by one rule for all commands: Ctrl-C (SIGINT), SIGTERM, and others like SIGTERM.

The first signal raises :class:`Stopped` in the main thread, or, after :func:`defer`, is remembered until the work
is at a point where it can be stopped. A second one ends the process at once. So does a thread when the main thread does
not end the process in time, because it waits in code that is not Python's, such as an exchange with another process.
This module imports nothing that is slow, so that the rule holds while other modules are imported.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import NoReturn

from clipmapper.process.listening import listening

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # the last two are Slurm's before a time limit
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
PARENT = "CLIPMAPPER_PARENT"  # environment: id of the process of this project that started this one
_PATIENCE = 5.0  # seconds in which the main thread ends the process after a signal
_SAME = 0.2  # seconds in which a signal counts as the same one: some programs send it to a process and to its group


class Stopped(BaseException):
    """A signal asks this process to end. It is no Exception, so that no code takes it for an error of its own."""

    def __init__(self, signum: signal.Signals):
        super().__init__(signum)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status: 130 after Ctrl-C, 143 after the others."""
        return 128 + (signal.SIGINT if self.signum == signal.SIGINT else signal.SIGTERM)

    @property
    def name(self) -> str:
        """The signal, as text for the user."""
        return "Ctrl-C" if self.signum == signal.SIGINT else self.signum.name


@dataclass
class _State:
    owner: int = 0  # process that handles signals; a fork of it has the same handlers
    heard: Stopped | None = None  # the first signal, when it came
    asked: Stopped | None = None  # by the first signal, when the main thread has handled it
    since: float = 0.0  # when the first signal came, or no longer had to wait
    deferring: bool = False
    patience: float = math.inf  # seconds in which the main thread handles a signal that waits
    ending: Callable[[Stopped], str] | None = None  # None before the work begins
    before: Callable[[], object] = bool  # is called before a signal is raised
    said: threading.Lock = field(default_factory=threading.Lock)  # locked when the last line was printed
    child: bool = False  # its parent decides when it ends


_state = _State()


@contextmanager
def stoppable() -> Iterator[None]:
    """Handle signals by the rule of this module while the body runs.

    Signals that are ignored, as under ``nohup``, stay ignored. Outside of the main thread nothing is changed. If
    another process of the project started this one, that gets the user's signals too and decides when this one ends:
    Ctrl-C is ignored here then, and repeated signals count once.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    child = PARENT in os.environ
    outer, _state = _state, _State(os.getpid(), child=child)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN if child and number == signal.SIGINT else _handle)
    try:
        with nullcontext() if child else listening(partial(_hear, _state)):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state = outer
        atexit.unregister(_end_silently)
        atexit.register(_end_silently)


def _end_silently() -> None:
    """Let Ctrl-C end the process without a stack trace while Python shuts down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.owner:  # a fork that has not begun its work
        os._exit(1)
    if _state.asked is None:
        ask(signal.Signals(number))
        if _state.ending is None:
            _end(_state, asked())
        if not _state.deferring:
            _state.before()
        check()


def _hear(state: _State, number: int | None) -> None:
    """End the process if a second signal came, or if the main thread did not end it in time after the first one."""
    now = time.monotonic()
    if number in SIGNALS and state.heard is None:
        state.heard, state.since = Stopped(signal.Signals(number)), now
    if state.heard is None:
        return
    patience = _PATIENCE
    if state.deferring:
        patience = state.patience if state.asked is None else math.inf
    if now - state.since > (_SAME if number in SIGNALS else patience):
        _end(state, state.heard)


def _end(state: _State, stop: Stopped) -> NoReturn:
    """End the process without its cleanup, in one line."""
    if (line := _last_line(state, stop)) is not None:
        end_now(line, stop.status)
    _restore_terminal()
    os._exit(stop.status)


def _last_line(state: _State, stop: Stopped) -> str | None:
    if state.child or not state.said.acquire(blocking=False):
        return None
    return f"stopped by {stop.name}: nothing was begun" if state.ending is None else state.ending(stop)


def begin_work(ending: Callable[[Stopped], str], before: Callable[[], object] = bool) -> None:
    """Tell that from now on there may be something to keep, so that a signal no longer ends the process at once.

    Args:
        ending: Function that ends other processes and returns the last line. It is called, in any thread, if the
            process is ended without its cleanup.
        before: Function that is called before a signal is raised as an exception.
    """
    _state.ending, _state.before = ending, before


def last_line() -> str | None:
    """Return the line that ends this process after a signal, once; None if another process prints one."""
    return _last_line(_state, asked())


def ask(signum: signal.Signals) -> None:
    """Ask this process to end, as a signal does; :func:`check` then raises :class:`Stopped`."""
    if _state.asked is None:
        _state.asked = Stopped(signum)


def is_asked() -> bool:
    """Return whether a signal has asked this process to end."""
    return _state.asked is not None


def asked() -> Stopped:
    """Return what asked this process to end."""
    assert _state.asked is not None
    return _state.asked


def check() -> None:
    """Raise :class:`Stopped` if a signal has asked this process to end, unless that is deferred."""
    if _state.asked is not None and not _state.deferring and threading.current_thread() is threading.main_thread():
        raise _state.asked


def defer(waiting: bool, patience: float = math.inf) -> None:
    """Let signals wait for the next :func:`check` after ``defer(False)``; until then the work asks :func:`is_asked`.

    Args:
        waiting: Whether signals wait.
        patience: Seconds; if the main thread runs no Python for as long after a signal, the process ends at once.
    """
    _state.deferring, _state.patience = waiting, patience
    _state.since = time.monotonic()


def end_now(line: str, status: int) -> NoReturn:
    """Print a line on stderr and end this process, without its cleanup."""
    _restore_terminal()
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    os._exit(status)


def _restore_terminal() -> None:
    """Show the cursor, which a progress bar hides, and begin a new line."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")
