"""The jobs of a sweep that run in processes of their own, which Hydra's launchers start, and their end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipmapper.process.partial import lives

# Of submitit: they kill a job a second after Ctrl-C, and print a stack trace.
_STARTERS = (b"submitit.local._local", b"submitit.core._submit")
_ENDED = "ended"
_POLL = 0.1  # seconds


@contextmanager
def noted(notes: Path, job: str) -> Iterator[None]:
    """Note that this process runs a job while the body does, unless the sweep has ended: the process then ends too."""
    if not notes.is_dir() or (notes / _ENDED).exists():
        os._exit(1)
    running = notes / f"running-{os.getpid()}"
    running.write_text(job, "utf-8")
    try:
        yield
    finally:
        running.unlink(missing_ok=True)


def end(notes: Path, patience: float) -> list[str]:
    """End the jobs that run, and let none begin; return the jobs that ran.

    Those that still run after ``patience`` seconds are killed. Processes that have not begun their job are killed.
    """
    (notes / _ENDED).touch()
    begun = running(notes)
    for process in _descendants(os.getpid()):
        if process not in begun and any(each in _read(process, "cmdline") for each in _STARTERS):
            _send(process, signal.SIGKILL)
    for process in begun:
        _send(process, signal.SIGTERM)
    until = time.monotonic() + patience
    while any(map(lives, running(notes))) and time.monotonic() < until:
        time.sleep(_POLL)
    for process in running(notes):
        _send(process, signal.SIGKILL)
    return sorted(begun.values())


def running(notes: Path) -> dict[int, str]:
    """Return the jobs that run by their processes."""
    found = {}
    for path in notes.glob("running-*"):
        with suppress(FileNotFoundError):
            found[int(path.name.partition("-")[2])] = path.read_text("utf-8")
    return found


def _descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and that these have started; none where /proc is missing."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        if stat := _read(int(path.name), "stat"):
            parents[int(path.name)] = int(stat.rpartition(b")")[2].split()[1])
    found, new = set[int](), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)
