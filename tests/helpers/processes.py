"""Other processes, as tests see them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


def lives(number: int) -> bool:
    """Return whether a process lives; one that ended, but is still in the table, does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def end_soon(numbers: Iterable[int], seconds: float = 5.0) -> bool:
    """Return whether processes end within some seconds."""
    until = time.monotonic() + seconds
    while (left := any(map(lives, numbers))) and time.monotonic() < until:
        time.sleep(0.05)
    return not left


def descendants(number: int) -> list[int]:
    """Return the processes that a process has started, and that these have started; parents come first."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found: list[int] = []
    below = [number]
    while below := sorted(child for child, parent in parents.items() if parent in below):
        found += below
    return found
