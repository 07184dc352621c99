"""The jobs of a sweep that submitit runs, in processes of this machine or by Slurm: one without a result ends no other.

A job that is killed, as by the system when memory runs out or by ``scancel``, leaves no result. submitit raises an
error for the first such job at once, while others run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from clipmapper.errors import UserError


class Ended(Protocol):
    """A function that is called when a job has ended."""

    def __call__(self, number: int, name: str, log: Path, result: bool) -> None:
        """Note a job.

        Args:
            number: Its number in the sweep.
            name: Its overrides.
            log: The file with what it wrote to stderr.
            result: Whether it has left a result, which the job of a command that fails does too.
        """


@contextmanager
def waiting_for_all(ended: Ended) -> Iterator[None]:
    """Let submitit wait for every job in the body, whatever becomes of the others; without submitit do nothing.

    Raises:
        UserError: A job cannot be submitted.
    """
    try:
        from hydra.core.utils import JobReturn, JobStatus
        from submitit.core import core
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError
    except ImportError:
        yield
        return
    kind: Any = core.Job
    results: Callable[[Any], list[Any]] = kind.results

    def results_or_none(job: Any) -> list[Any]:
        if job.num_tasks > 1:  # this function is called for each task
            return results(job)
        overrides, _, number, *_ = job.submission().args  # of Hydra's launcher
        name = ",".join(sorted(each for each in overrides if not each.startswith("hydra")))
        try:
            found = results(job)
        except UncompletedJobError:
            ended(number, name, job.paths.stderr, False)
            return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED)]
        ended(number, name, job.paths.stderr, True)
        return found

    kind.results = results_or_none
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, UncompletedJobError | FailedSubmissionError) and "slurm cluster" not in str(error):
            raise
        raise UserError(
            f"the jobs of the sweep cannot be submitted: {' '.join(str(error).split())}; run this where sbatch and "
            "srun are, with values of hydra.launcher that the cluster accepts"
        ) from error
    finally:
        kind.results = results
