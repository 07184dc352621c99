"""Ending by a signal, by one rule for all commands: Ctrl-C (SIGINT), SIGTERM, and SIGHUP like SIGTERM.

The first signal raises :class:`Stopped` in the main thread, or, after :func:`defer`, is remembered until the work
is at a point where it can be stopped. A second one ends the process at once. This module imports nothing that is slow,
so that the rule holds while other modules are imported.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
PARENT = "CLIPMAPPER_PARENT"  # environment: id of the process of this project that started this one
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
    asked: Stopped | None = None  # by the first signal
    since: float = 0.0
    deferring: bool = False
    working: bool = False  # before, there is nothing to keep, and a signal ends the process at once
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
        if not _state.working:
            if not _state.child:
                end_now(f"stopped by {Stopped(signal.Signals(number)).name}: nothing was begun", asked().status)
            os._exit(asked().status)
        check()
    elif not _state.child and time.monotonic() - _state.since > _SAME:
        _restore_terminal()
        os._exit(_state.asked.status)


def begin_work() -> None:
    """Tell that from now on there may be something to keep, so that a signal no longer ends the process at once."""
    _state.working = True


def ask(signum: signal.Signals) -> None:
    """Ask this process to end, as a signal does; :func:`check` then raises :class:`Stopped`."""
    if _state.asked is None:
        _state.asked, _state.since = Stopped(signum), time.monotonic()


def is_asked() -> bool:
    """Return whether a signal has asked this process to end."""
    return _state.asked is not None


def is_child() -> bool:
    """Return whether another process of the project started this one, which then leaves messages to it."""
    return _state.child


def asked() -> Stopped:
    """Return what asked this process to end."""
    assert _state.asked is not None
    return _state.asked


def check() -> None:
    """Raise :class:`Stopped` if a signal has asked this process to end, unless that is deferred."""
    if _state.asked is not None and not _state.deferring and threading.current_thread() is threading.main_thread():
        raise _state.asked


def defer(waiting: bool) -> None:
    """Let signals wait for the next :func:`check` after ``defer(False)``; until then the work asks :func:`is_asked`."""
    _state.deferring = waiting


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
