"""Slurm's signal before a time limit: a run with ``resume=auto`` stops, and its job is put into the queue again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from clipmapper.process import stopping
from clipmapper.process.launched import is_first

AUTO = "auto"  #: Value of ``resume`` with which a command continues the run in its own folder, if there is one.
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def requeued(resume: object) -> Iterator[None]:
    """Run the body; if one of Slurm's signals stops it and ``resume`` is ``auto``, requeue the job."""
    try:
        yield
    except BaseException:
        job = _job()
        if resume == AUTO and stopping.is_asked() and stopping.asked().signum in _SIGNALS and job and is_first():
            _requeue(job)
        raise


def _job() -> str | None:
    """Return Slurm's name of this job, or None outside of Slurm."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def _requeue(job: str) -> None:
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    what = f"could not be requeued ({problem}); submit it again" if problem else "is requeued"
    print(f"job {job} {what}", file=sys.stderr, flush=True)
