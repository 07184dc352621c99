"""Commands: functions of a composed config and a run folder that users start with ``KEY=VALUE`` arguments."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clipmapper import console
from clipmapper.arguments import for_hydra
from clipmapper.cli.error_line import errors_in_one_line
from clipmapper.cli.foreign_messages import without_foreign_messages
from clipmapper.cli.signals import leaving_after_signal, stops_in_one_line
from clipmapper.cli.written_config import write_config
from clipmapper.config.run_folder import CONFIG, may_write
from clipmapper.errors import UserError
from clipmapper.help import help_of
from clipmapper.places import CHECKOUT, CONFIGS
from clipmapper.process import launched, stopping, sweep, workers
from clipmapper.process.partial import alone_in, remove_left_over
from clipmapper.process.requeue import requeued
from clipmapper.process.stop_line import StartedRun
from clipmapper.text import check_text, printable

Task = Callable[[DictConfig, Path], object]


@dataclass(frozen=True)
class Unfinished:
    """What a command returns if other jobs have to finish the results."""

    what: str  #: what it has written, a plural


def command(
    config_name: str, continued: Sequence[str] = (), shared: bool = False
) -> Callable[[Task], Callable[..., None]]:
    """Return a decorator that turns a function of (composed config, run folder) into a command.

    Args:
        config_name: The command's config, ``configs/{config_name}.yaml``.
        continued: Patterns of files by which the command recognises a run of its own in its folder, which it continues.
        shared: Whether several processes share the work of the command. Of other commands, only the first process
            that torchrun or srun started does the work, and the others end.

    Returns:
        A decorator. The decorated function takes the list of overrides; by default these are ``sys.argv[1:]``.
    """

    def decorate(task: Task) -> Callable[..., None]:
        def main(overrides: Sequence[str] | None = None) -> None:
            _leave_scripts_folder()
            _print_anything()
            typed_in = list(sys.argv)
            given = typed_in[1:] if overrides is None else overrides
            if {"-h", "--help"} & {*given}:
                print(help_of(config_name))
                return
            os.environ["HYDRA_FULL_ERROR"] = "1"  # with full errors, Hydra lets every exception reach our handler
            frame = hydra.main(version_base=None, config_path=str(CONFIGS), config_name=config_name)
            try:
                with (
                    without_foreign_messages(),
                    errors_in_one_line(command=config_name),
                    sweep.failures_at_the_end(config_name, given),
                ):
                    if not shared and not launched.is_first():
                        return
                    _check_typed(given)
                    sys.argv[1:] = for_hydra(given, config_name)
                    line = shlex.join([f"scripts/{config_name}.py", *given])
                    with leaving_after_signal():
                        frame(_in_run_folder(task, typed_in, line, continued))()
            finally:
                sys.argv[:] = typed_in

        main.__doc__ = task.__doc__
        return main

    return decorate


def _in_run_folder(
    task: Task, typed_in: list[str], line: str, continued: Sequence[str]
) -> Callable[[DictConfig], object]:
    def run(config: DictConfig) -> object:
        sys.argv[:] = typed_in  # Lightning starts the other processes of a run with the original command line
        name, first = str(HydraConfig.get().job.config_name), launched.is_first()
        folder = _run_folder() if first else launched.folder_of_first(_run_folder())
        sharded = OmegaConf.select(config, "shard") is not None  # other jobs use the folder at the same time
        console.shown = first and bool(OmegaConf.select(config, "trainer.enable_progress_bar", default=True))
        if first:
            print(f"run folder: {folder}", flush=True)
        started = StartedRun(name, folder, _arguments(line))

        def ending(stop: stopping.Stopped) -> str:
            workers.end_watched()
            return started.stopped(stop.name) + sweep.rest()

        workers.going_on = started.going_on
        launched.running = started.in_another_process()
        # Errors are handled here, since Hydra would print an additional line above ours.
        with (
            launched.own_environment(),
            _going_on_with_other_jobs(folder),
            errors_in_one_line(folder),
            alone_in(folder, others=sharded) if first else nullcontext(),
            nullcontext() if sharded else _without_bare_folder(folder, first),
            requeued(OmegaConf.select(config, "resume")),
            stops_in_one_line(started),
            nullcontext() if first else redirect_stdout(io.StringIO()),
            console.progress(None, f"{name} is running"),
        ):
            stopping.begin_work(ending)
            remove_left_over(folder.rglob(".*.partial"))
            new = first and may_write(folder, OmegaConf.select(config, "resume"), continued)
            if new:
                write_config(folder, config, line)
            if first:
                launched.tell_folder(folder)
            dry = OmegaConf.select(config, "dry_run", default=False)
            result = task(config, folder) if first or not dry else None  # one process predicts for all
            if first and not new and not dry:  # a run that was continued: only now is the config that of its results
                write_config(folder, config, line)
            if not dry:  # it writes no results
                print(f"{result.what if isinstance(result, Unfinished) else 'results'} are in {folder}", flush=True)
            return None if isinstance(result, Unfinished) else result
        return None  # a job of a sweep that failed

    return run


def _run_folder() -> Path:
    """Return the run folder that Hydra made; ``${`` in its name is no interpolation."""
    runtime: Any = OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)
    return Path(runtime["output_dir"])


def _arguments(line: str) -> list[str]:
    """Return the arguments of the running command: those that were typed, or those of one job of a sweep."""
    if not sweep.is_job():
        return shlex.split(line)[1:]
    given = HydraConfig.get().overrides
    return [*given.task, *(each for each in given.hydra if each.startswith("hydra.searchpath="))]


@contextmanager
def _going_on_with_other_jobs(folder: Path) -> Iterator[None]:
    """Run a job of a sweep in the body: if it fails, the others are run. If the command is no sweep, do nothing."""
    if not sweep.is_job():
        yield
        return
    with without_foreign_messages(), sweep.job(folder):
        try:
            yield
        except SystemExit as leaving:
            if leaving.code != 1 or not sweep.note_failure():
                raise
        except Exception:
            if not sweep.note_failure():
                raise
            traceback.print_exc()


@contextmanager
def _without_bare_folder(folder: Path, first: bool) -> Iterator[None]:
    """Remove the run folder after an error if it was empty before and no file was written to it except the config.

    Processes other than the first one remove it only if it is empty, as when the first one has removed its files.
    """
    new = first and not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if new and not any(path.is_file() and path != folder / CONFIG for path in folder.rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        elif not first:
            with suppress(OSError):
                folder.rmdir()
        raise


def _print_anything() -> None:
    """Print characters that the terminal's encoding does not have as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_typed(arguments: Sequence[str]) -> None:
    """Raise UserError if UTF-8 cannot hold an argument, or the name of the current folder, or this is removed."""
    for argument in arguments:
        key = argument.partition("=")[0] if "=" in argument else "an argument"
        check_text(argument, printable(key), "use a terminal in UTF-8, or rename the file that it names")
    try:
        check_text(os.getcwd(), "the current folder", "rename the folder")
    except FileNotFoundError:
        raise UserError("the current folder has been removed; change to another one") from None


def _leave_scripts_folder() -> None:
    """Remove ``scripts`` from the start of ``sys.path``, since scripts/explain.py would hide the package explain."""
    if CHECKOUT and Path(sys.path[0]).resolve() == CHECKOUT / "scripts":
        del sys.path[0]
