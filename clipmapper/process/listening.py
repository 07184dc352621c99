"""A thread that hears the signals of this process, also while the main thread is in code that is not Python's."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL = 0.1  # seconds
_END = b"\0"  # no signal has this number

_listens = False  # this process, not a fork of it


@contextmanager
def listening(hear: Callable[[int | None], object]) -> Iterator[None]:
    """Let a thread call ``hear`` with the number of each signal that has a handler in Python, while the body runs.

    After the first signal, the thread also calls it every 0.1 seconds with None. The main thread may call this.
    """
    global _listens
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    _listens = True
    thread = threading.Thread(target=_listen, args=(ear, hear), daemon=True)
    thread.start()
    try:
        yield
    finally:
        _listens = before != -1
        signal.set_wakeup_fd(before)
        os.write(mouth, _END)
        thread.join()
        os.close(ear)
        os.close(mouth)


def _listen(ear: int, hear: Callable[[int | None], object]) -> None:
    wait = None
    while True:
        heard = os.read(ear, 1) if select.select([ear], [], [], wait)[0] else None
        if heard == _END:
            return
        hear(heard[0] if heard else None)
        wait = _POLL


def _leave_to_parent() -> None:
    """Let a fork not write its own signals, such as the end of a worker, into the pipe of its parent."""
    if _listens:
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
