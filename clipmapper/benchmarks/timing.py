"""Time and memory of functions; their calls alternate, so that a busy machine slows all of them equally."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

_RESET = "/proc/self/clear_refs"  # only on Linux


def side_by_side(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the median seconds of each function over ``rounds`` calls, after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            start = clock()
            run()
            finish()
            if turn:
                seconds[name].append(clock() - start)
    return {name: median(times) for name, times in seconds.items()}


def finish() -> None:
    """Wait until a GPU has ended all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Return the greatest increase of memory during a call, in bytes: of a GPU's tensors, or of this process.

    It is 0 for processes on systems other than Linux.
    """
    before = _memory(device, "VmRSS", torch.cuda.memory_allocated)
    return highest_memory(run, device) - before


def highest_memory(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Return the greatest memory during a call as :func:`peak_memory`, with what was there before it."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif os.path.exists(_RESET):
        with open(_RESET, "w") as file:
            file.write("5")  # reset the peak that the kernel has recorded
    run()
    return _memory(device, "VmHWM", torch.cuda.max_memory_allocated)


def _memory(device: torch.device | str, field: str, of_gpu: Callable[[], int]) -> int:
    if torch.device(device).type == "cuda":
        return of_gpu()
    return _status(field) if os.path.exists(_RESET) else 0


def _status(field: str) -> int:
    """Return a field of this process's status file, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
