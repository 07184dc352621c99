"""What all commands share: config composition by Hydra, typed configs, a run folder, and errors in one line.

A command is a function of (config, run folder). An error that the user can fix is printed to stderr in one line, and
the exit status is 1. Set ``CLIPMAPPER_TRACE=1`` in the environment to see the stack trace instead.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import shutil
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper import console
from clipmapper.arguments import argument_problem, for_hydra, without_interpolation
from clipmapper.config.checks import key_problem, unknown_key
from clipmapper.config.run_folder import CONFIG, may_write
from clipmapper.config.schema import DATA_SCHEMAS, MODEL_SCHEMAS, Config
from clipmapper.config.values import check_values, shown
from clipmapper.errors import UserError
from clipmapper.help import help_of
from clipmapper.places import CHECKOUT, CONFIGS, PACKAGE
from clipmapper.process import launched, stopping, sweep, together, workers
from clipmapper.process.partial import remove_left_over
from clipmapper.process.requeue import AUTO, requeued
from clipmapper.process.stop_line import StartedRun
from clipmapper.storage.checksums import sealed_text
from clipmapper.tasks import TASKS
from clipmapper.text import check_text, check_texts, printable

# Where warnings are not shown from: libraries, code without a file, and this project, whose own messages are printed.
_FOREIGN = (
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
    *(str(PACKAGE.parent / name) for name in ("clipmapper", "explain", "perturbation")),
)
Task = Callable[[DictConfig, Path], object]
Member = TypeVar("Member")


def command(
    config_name: str, continued: str | None = None, shared: bool = False
) -> Callable[[Task], Callable[..., None]]:
    """Return a decorator that turns a function of (composed config, run folder) into a command.

    Args:
        config_name: The command's config, ``configs/{config_name}.yaml``.
        continued: File by which the command recognises a run of its own in its folder, which it continues.
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
                with _without_foreign_messages(), _errors_in_one_line(), sweep.failures_at_the_end(config_name, given):
                    if not shared and not launched.is_first():
                        return
                    _check_typed(given)
                    sys.argv[1:] = for_hydra(given)
                    line = shlex.join([f"scripts/{config_name}.py", *given])
                    with _leaving_after_signal():
                        frame(_in_run_folder(task, typed_in, line, continued))()
            finally:
                sys.argv[:] = typed_in

        main.__doc__ = task.__doc__
        return main

    return decorate


def _in_run_folder(task: Task, typed_in: list[str], line: str, continued: str | None) -> Callable[[DictConfig], object]:
    def run(config: DictConfig) -> object:
        sys.argv[:] = typed_in  # Lightning starts the other processes of a run with the original command line
        name, first = str(HydraConfig.get().job.config_name), launched.is_first()
        folder = _run_folder() if first else launched.folder_of_first(_run_folder())
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
            _errors_in_one_line(folder),
            _without_bare_folder(folder),
            requeued(OmegaConf.select(config, "resume")),
            _stops_in_one_line(started),
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
            result = task(config, folder)
            if first and not new:  # a run that was continued: only now is the config that of its results
                write_config(folder, config, line)
            print(f"results are in {folder}", flush=True)
            return result
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
    with _without_foreign_messages(), sweep.job(folder):
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
def _leaving_after_signal() -> Iterator[None]:
    """End the process in one line when a signal stops what the body does."""
    try:
        yield
        stopping.check()
    except BaseException:
        if not stopping.is_asked():  # libraries may have replaced the exception that the signal raised
            raise
        if os.environ.get("CLIPMAPPER_TRACE") == "1":
            traceback.print_exc()
        elif (line := stopping.last_line()) and launched.is_first():
            console.print_last(line)
        sys.exit(stopping.asked().status)


@contextmanager
def _stops_in_one_line(started: StartedRun) -> Iterator[None]:
    """End the process in one line when a signal stops the run, or another process of a distributed run has ended.

    Raises:
        UserError: Another process of a distributed run ended badly.
    """
    try:
        with _leaving_after_signal():
            yield
    except Exception as error:
        if not isinstance(error, UserError) and (line := workers.death_of_another(error)):
            raise UserError(f"{line}{started.going_on()}") from error
        raise
    finally:
        workers.end_watched()
        if sweep.is_job():
            together.part()


@contextmanager
def _without_bare_folder(folder: Path) -> Iterator[None]:
    """Remove the run folder after an error if no file was written to it except the config."""
    try:
        yield
    except BaseException:
        if not any(path.is_file() and path != folder / CONFIG for path in folder.rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _without_foreign_messages() -> Iterator[None]:
    """Silence warnings and log lines of libraries, unless stack traces or Python's warnings (``-W``) are asked for.

    Warnings from the user's own files, such as an explainer's, are shown.
    """
    if os.environ.get("CLIPMAPPER_TRACE") == "1" or sys.warnoptions:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    show, level = warnings.showwarning, logging.root.manager.disable
    logging.disable(logging.WARNING)

    def show_own(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
    ) -> None:
        if not filename.startswith(_FOREIGN):
            show(message, category, filename, lineno, *rest, **more)

    warnings.showwarning = show_own  # filters would be replaced by those that libraries add on import
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.disable(level)


def _print_anything() -> None:
    """Print characters that the terminal's encoding does not have as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_typed(arguments: Sequence[str]) -> None:
    """Raise UserError if UTF-8 cannot hold an argument, or the name of the current folder, below which runs are."""
    for argument in arguments:
        key = argument.partition("=")[0] if "=" in argument else "an argument"
        check_text(argument, printable(key), "use a terminal in UTF-8, or rename the file that it names")
    check_text(os.getcwd(), "the current folder", "rename the folder")


def write_config(folder: Path, config: DictConfig, line: str) -> None:
    """Write the resolved config to ``config.yaml``; comments are the command line, first, and a checksum, last.

    Raises:
        UserError: UTF-8 cannot hold a value.
    """
    comment = printable(" ".join(line.splitlines()))  # a line break in an argument would end the comment
    resolved = OmegaConf.to_container(config, resolve=True)
    check_texts(resolved, "config key ", "correct it")
    text = OmegaConf.to_yaml(OmegaConf.create(_without_interpolations(resolved)))
    (folder / CONFIG).write_text(sealed_text(f"# python {comment}\n{text}"), "utf-8")


def _without_interpolations(value: Any) -> Any:
    """Return a resolved value with ``${`` escaped in all texts, so that OmegaConf reads the same texts again."""
    if isinstance(value, dict):
        return {key: _without_interpolations(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_interpolations(each) for each in value]
    return without_interpolation(value) if isinstance(value, str) else value


def _leave_scripts_folder() -> None:
    """Remove ``scripts`` from the start of ``sys.path``, since scripts/explain.py would hide the package explain."""
    if CHECKOUT and Path(sys.path[0]).resolve() == CHECKOUT / "scripts":
        del sys.path[0]


def check_folder_is_given(argument: str) -> None:
    """Raise UserError if the name of the run folder is new in every job, but an argument needs the same one."""
    given = [str(each) for each in HydraConfig.get().overrides.hydra]
    if not any(each.startswith(("hydra.run.dir=", "hydra.sweep.subdir=")) for each in given):
        raise UserError(f"{argument}: give hydra.run.dir=FOLDER (in a sweep hydra.sweep.subdir), the same in all jobs")


def resumed(resume: str | None, folder: Path, file: str) -> str | None:
    """Return the run that a command continues: with ``auto`` that in its own folder, if there is one.

    Args:
        resume: The config key; ``auto`` needs a run folder whose name is given.
        folder: The run folder.
        file: A file that a run to continue has.

    Raises:
        UserError: The name of the run folder is not given.
    """
    if resume != AUTO:
        return resume
    check_folder_is_given("resume=auto")
    return str(folder) if (folder / file).is_file() else None


def choice(group: str) -> str:
    """Return the name of the file that the running command chose from a config group.

    Raises:
        UserError: No file or several files were chosen.
    """
    chosen = HydraConfig.get().runtime.choices.get(group)
    if chosen is None:
        raise UserError(f"{group}: give one choice, {group}=NAME; to run several, give {group}.names=[NAME,…]")
    return str(chosen)


@contextmanager
def _errors_in_one_line(folder: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if os.environ.get("CLIPMAPPER_TRACE") == "1" or not _is_user_error(error):
            raise
        last = printable(_one_line(error, folder))
        if not workers.tell_first(last):
            console.print_last(f"error: {last}")
        sys.exit(1)


def _is_user_error(error: Exception) -> bool:
    """Return whether the user can fix the error; the only such plain ValueError is Hydra's answer to ``data=null``."""
    plain = isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException | UserError)
    return not plain or str(error).startswith("Config group override")


def _one_line(error: Exception, folder: Path | None) -> str:
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return key_problem(cause)
    if isinstance(error, OSError) and not isinstance(error, UserError):
        name = error.filename or folder or "files"  # the error of a full disk has no file name
        return f"{name}: {error.strerror or error}; check that the folder exists, is writable and has space left"
    return argument_problem(error)


def _missing_choice(error: MissingConfigException) -> str:
    """Return Hydra's message about a missing config, which lists the options of its group, as one line."""
    text = " ".join(str(error).split("Config search path")[0].split())
    found = re.search(r"Could not find '([^']+)'(?: Available options in '[^']+': (.*))?", text)
    if not found:
        return text
    options = f"; choose one of: {', '.join(found[2].split())}" if found[2] else ""
    group, _, choice = found[1].rpartition("/")
    return f"there is no {group}={choice}{options}" if group else f"there is no config {choice}{options}"


def typed(config: DictConfig, schema: type[Any] = Config) -> Any:
    """Convert a composed config to an instance of the dataclass ``schema``, with its sections as dataclasses.

    The sections ``task``, ``data`` and ``model`` get the schema that their ``name`` selects.

    Raises:
        UserError: A key is unknown, has no value or has a wrong type; the message names the key.
    """
    sections = [f.name for f in fields(schema)]
    unknown = [str(key) for key in config if key not in sections]
    if unknown:
        experiment = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
        also = f"; experiment={experiment} may be for another command" if experiment else ""
        raise UserError(unknown_key(unknown[0], sections) + also)
    shaped = OmegaConf.structured(schema)
    task_schemas = {name: task.schema for name, task in TASKS.items()}
    for section, schemas in (("task", task_schemas), ("data", DATA_SCHEMAS), ("model", MODEL_SCHEMAS)):
        if section in sections:
            shaped[section] = OmegaConf.structured(named(config, section, schemas))
    try:
        chosen: dict[str, Any] = {
            key: OmegaConf.get_type(shaped[key]) for key in ("task", "data", "model") if key in sections
        }
        for resolve in (False, True):  # a value that is taken from another key is reported with that key
            values: Any = OmegaConf.to_container(config, resolve=resolve)
            check_values(schema, values, chosen)
        merged = OmegaConf.merge(shaped, config)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"config key {missing[0]} has no value: give {missing[0]}=…")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error


def named(config: DictConfig, section: str, members: Mapping[str, Member]) -> Member:
    """Return the member of ``members`` selected by the key ``name`` of a config section.

    Raises:
        UserError: There is no member with this name.
    """
    name = OmegaConf.select(config, f"{section}.name")
    if name not in members:
        raise UserError(f"{section}.name={shown(name)} is not one of: {', '.join(members)}")
    return members[name]
