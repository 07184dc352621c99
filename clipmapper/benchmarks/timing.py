"""Time and memory of functions; their calls alternate, so that a busy machine slows all of them equally."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from statistics import median


def side_by_side(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each function over ``rounds`` calls, after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def peak_memory(run: Callable[[], object]) -> int:
    """Return the greatest increase of this process's memory during a call, in bytes; 0 on systems other than Linux."""
    if not os.path.exists("/proc/self/clear_refs"):
        return 0
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # reset the peak that the kernel has recorded
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """Return a field of this process's status file, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
