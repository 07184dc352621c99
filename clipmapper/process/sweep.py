"""A sweep (``--multirun``): a job that fails does not end it, and the failed ones are named at its end.

The jobs run in this process or in others (Hydra's launchers), so those that fail are noted in a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from clipmapper.errors import UserError
from clipmapper.process import workers

_NOTES = "CLIPMAPPER_SWEEP"  # environment: id of the process of the sweep, and the file of the failed jobs


@contextmanager
def failures_at_the_end() -> Iterator[None]:
    """Run a sweep in the body, or anything else, to which this does nothing.

    Raises:
        UserError: Jobs failed; the message names them.
    """
    with TemporaryDirectory(prefix="clipmapper-") as folder:
        notes = Path(folder) / "failed"
        os.environ[_NOTES] = f"{os.getpid()}:{notes}"
        try:
            yield
        finally:
            del os.environ[_NOTES]
        failed = [json.loads(line) for line in notes.read_text("utf-8").splitlines()] if notes.is_file() else []
    if failed:
        raise UserError(f"{len(failed)} jobs of the sweep failed: {'; '.join(failed)}")


def is_job() -> bool:
    """Return whether the running command is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def begin_job() -> None:
    """End this process with that of the sweep, if that has started it."""
    parent = int(os.environ.get(_NOTES, "0:").partition(":")[0])
    if parent == os.getppid():
        workers.end_with_parent(parent)


def note_failure() -> None:
    """Note that the running job has failed."""
    job = HydraConfig.get().job
    with Path(os.environ[_NOTES].partition(":")[2]).open("a", encoding="utf-8") as notes:
        notes.write(f"{json.dumps(f'number {job.num} ({job.override_dirname})')}\n")
