"""A sweep (``--multirun``): a job that fails does not end it, and the failed ones are named at its end.

The jobs run in this process or in others (Hydra's launchers), so those that run and those that fail are noted in files,
by jobs on other machines in the folder of the sweep, which all machines see.
A signal to the sweep ends its jobs, which keep their work.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from clipmapper.errors import UserError
from clipmapper.process import jobs, stopping, submitted, workers
from clipmapper.process.partial import partial_path, place, remove_left_over

_NOTES = "CLIPMAPPER_SWEEP"  # environment: the machine and the process of the sweep, and the folder of its notes
_SHARED = "CLIPMAPPER_SWEEP_SHARED"  # environment: the folder of the notes of other machines, which the first one makes
_PATIENCE = 20.0  # seconds that jobs get to end after a signal, before they are killed


class SharedNotes(Callback):
    """Chooses the folder in which jobs on other machines note that they fail; named in ``configs/hydra``."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the jobs a new name in the folder of the sweep, and remove what killed sweeps have left there."""
        folder = Path(config.hydra.sweep.dir).resolve()
        remove_left_over(folder.glob(".failed.*.partial"))
        os.environ[_SHARED] = str(partial_path(folder / "failed"))


@contextmanager
def failures_at_the_end(command: str, given: Sequence[str]) -> Iterator[None]:
    """Run a sweep in the body, or anything else, to which this does nothing.

    Args:
        command: The name of the command.
        given: Its arguments.

    Raises:
        UserError: Jobs failed or were killed; the message names them.
    """
    if not {"-m", "--multirun", "hydra.mode=MULTIRUN"} & {*given}:
        yield
        return
    with TemporaryDirectory(prefix="clipmapper-") as folder:
        notes = Path(folder)
        os.environ[_NOTES] = f"{place()}:{os.getpid()}:{notes}"
        _begin(command, notes)
        logs: dict[int, str] = {}
        failed: dict[int, str] = {}

        def ended(number: int, name: str, log: Path, result: bool) -> None:
            logs[number] = f", log: {log}"
            if not result:
                failed[number] = f"{_named(number, name)} has ended without a result"

        try:
            with submitted.waiting_for_all(ended):
                yield
        except BrokenProcessPool as error:  # of joblib
            ran = "; ".join(sorted(jobs.running(notes).values()))
            raise UserError(
                f"a job of the sweep was killed, and joblib ended all that ran: {ran}; run these and those that had "
                "not begun again, with a smaller hydra.launcher.n_jobs if memory ran out"
            ) from error
        finally:
            del os.environ[_NOTES]
            shared = Path(os.environ.pop(_SHARED, notes))
            files = [path for each in {notes, shared} for path in each.glob("failed-*")]
            failed |= dict(json.loads(path.read_text("utf-8")) for path in files)
            shutil.rmtree(shared, ignore_errors=True)
    if failed:
        names = "; ".join(f"{failed[number]}{logs.get(number, '')}" for number in sorted(failed))
        raise UserError(f"{len(failed)} jobs of the sweep failed: {names}")


def _begin(command: str, notes: Path) -> None:
    """Let a signal end the jobs, and then the sweep, in one line that names the jobs."""
    ended: list[str] = []

    def end_jobs() -> None:
        stopping.defer(True)
        ended.extend(jobs.end(notes, _PATIENCE))
        stopping.defer(False)

    def last_line(stop: stopping.Stopped) -> str:
        line = f"stopped by {stop.name}: the sweep of {command}"
        what = "; ".join(ended) or "none had begun"
        for folder in (notes, os.environ.get(_SHARED, notes)):
            shutil.rmtree(folder, ignore_errors=True)  # this process may end without its cleanup
        return f"{line}; jobs that were stopped: {what}; to go on run these and those that had not begun again"

    stopping.begin_work(last_line, end_jobs)


def is_job() -> bool:
    """Return whether the running command is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


@contextmanager
def job(folder: Path) -> Iterator[None]:
    """Run a job of a sweep in the body. In a process of its own, it ends with the sweep, which gets the signals.

    Args:
        folder: The run folder.
    """
    machine, sweep, notes = _notes()
    if sweep == os.getpid():
        yield
    elif machine != place():  # such as a node of a cluster, whose signals are for the job
        with stopping.stoppable():
            yield
    else:
        with jobs.noted(notes, f"{_name()} in {folder}"):
            workers.end_with(sweep)
            os.environ[stopping.PARENT] = str(sweep)
            with stopping.stoppable():
                del os.environ[stopping.PARENT]
                yield


def note_failure() -> bool:
    """Note that the running job has failed; return whether the sweep will read that."""
    machine, _, notes = _notes()
    if machine != place():  # which does not see the notes of the sweep's machine
        if _SHARED not in os.environ:
            return False
        notes = Path(os.environ[_SHARED])
    number = HydraConfig.get().job.num
    try:
        notes.mkdir(parents=True, exist_ok=True)
        (notes / f"failed-{number}").write_text(json.dumps([number, _name()]), "utf-8")
    except OSError:  # the sweep has ended, or its folder cannot be written
        return False
    return True


def rest() -> str:
    """Return what becomes of the other jobs when the running one stops in the sweep's own process."""
    return "; the jobs of the sweep after this one were not begun" if is_job() and _notes()[1] == os.getpid() else ""


def _notes() -> tuple[str, int, Path]:
    machine, sweep, notes = os.environ.get(_NOTES, f":{os.getpid()}:").split(":", 2)
    return machine, int(sweep), Path(notes)


def _name() -> str:
    job = HydraConfig.get().job
    return _named(job.num, job.override_dirname)


def _named(number: int, overrides: str) -> str:
    return f"number {number} ({overrides})"
