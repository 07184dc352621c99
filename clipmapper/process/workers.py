"""Processes that this one starts: they end with it, also when it is killed, and the death of one has a name."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from multiprocessing.context import BaseContext
from pathlib import Path

from clipmapper.errors import UserError
from clipmapper.process import stopping
from clipmapper.process.launched import launched, told_by_another
from clipmapper.process.partial import lives

LINES = "CLIPMAPPER_LINES"  # environment: folder for the errors of a distributed run, which the first process prints
_POLL = 0.2  # seconds


def follow_parent() -> None:
    """End this process with the process of this project that started it, if one did."""
    parent = os.environ.pop(stopping.PARENT, None)  # not for the processes that this one starts
    if parent is not None:
        end_with(int(parent), _tell_end_of_first)


def _tell_end_of_first() -> None:
    if LINES in os.environ and os.environ.get("LOCAL_RANK") == "1":
        line = f"error: rank 0 of the distributed run was killed, so all its processes were ended{going_on()}"
        stopping.end_now(line, 1)


def end_with(process: int, end: Callable[[], object] = lambda: None) -> None:
    """Start a thread that ends this process, after calling ``end``, when another one has ended in whatever way.

    Args:
        process: The parent of this process, or a parent of that.
        end: The function that is called before.
    """
    child = os.getppid() == process

    def watch() -> None:
        while os.getppid() == process if child else lives(process):
            time.sleep(_POLL)
        end()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def pool(workers: int, context: BaseContext | None = None) -> Iterator[ProcessPoolExecutor]:
    """Provide a pool of processes, at least one, that end when the body ends in whatever way, or this process does.

    Raises:
        UserError: A worker was killed.
    """
    executor = ProcessPoolExecutor(max(1, workers), context, _begin, (os.getpid(),))
    try:
        yield executor
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, which the system does when memory runs out; "
            "free memory or give fewer workers, then run the command again"
        ) from error
    except BaseException:
        for child in active_children():
            child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    end_with(parent)


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def end_with_thread() -> None:
    """Let the system kill this process when the thread that started it ends: ``preexec_fn`` of other programs.

    Elsewhere than on Linux this does nothing.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Watched:
    """Further processes of a distributed run, by name. Their death ends this process in one line.

    Args:
        children: The processes.
        lines: Folder with a file for each, by its name, to which it writes the line of its error.
    """

    def __init__(self, children: Mapping[str, subprocess.Popen[bytes]], lines: Path):
        self._children, self._lines, self._told = children, lines, False
        threading.Thread(target=self._watch, daemon=True).start()

    def death(self, patience: float = 0.0) -> str | None:
        """Return what ended a process, None if none has ended badly after ``patience`` seconds."""
        until = time.monotonic() + patience
        while True:
            ended = {name: code for name, child in self._children.items() if (code := child.poll())}
            if ended:
                self._told = True
                name = min(ended, key=ended.__getitem__)  # killed: the others end because of this
                line = _line_of(self._lines / name)
                return line or f"{name} of the distributed run {_ended(ended[name])}, so all its processes were ended"
            if time.monotonic() >= until:
                return None
            time.sleep(_POLL / 4)

    def end(self) -> None:
        """Kill the processes that still run."""
        self._told = True
        for child in self._children.values():
            if child.poll() is None:
                child.kill()
        shutil.rmtree(self._lines, ignore_errors=True)

    def _watch(self) -> None:
        while not self._told:
            time.sleep(_POLL)
            if any(child.poll() for child in self._children.values()):
                time.sleep(1.0)  # the main thread is told by its next exchange with that process, if there is one soon
                if not self._told and not stopping.is_asked() and (line := self.death()):
                    self.end()
                    stopping.end_now(f"error: {line}{going_on()}", 1)


watched: Watched | None = None  #: The further processes of a distributed run that this process has started.
going_on: Callable[[], str] = str  #: Returns how to go on after a stop, as the end of a line.


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    with suppress(ValueError):
        return f"was killed ({signal.Signals(-code).name})"
    return f"was killed (signal {-code})"


def _line_of(lines: Path) -> str | None:
    try:
        return lines.read_text("utf-8") or None
    except OSError:
        return None


def death_of_another(error: BaseException) -> str | None:
    """Return the name and end of another process of a distributed run, if its death caused this error."""
    if watched is not None:
        return watched.death(3.0)
    if LINES in os.environ:
        time.sleep(1.0)  # until the end of the first process, if that is the cause, ends this one
    place = launched()  # srun sets no WORLD_SIZE
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "1") or (place is not None and place.world > 1)
    text = str(error).lower()
    if several and isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text or "closed by peer" in text):
        return "another process of this distributed run ended, so this one ends too"
    return None


def end_watched() -> None:
    """Kill the further processes of a distributed run that still run, after all have done their work."""
    global watched
    if watched is not None:
        watched.end()
        watched = None


def tell_first(line: str) -> bool:
    """Return whether another process of a distributed run prints an error: the first one, which gets this line."""
    if not (folder := os.environ.get(LINES)):
        return told_by_another()
    with suppress(OSError):
        (Path(folder) / f"rank {os.environ.get('LOCAL_RANK')}").write_text(line, "utf-8")
    return True
