"""The frame of every command: Hydra in front, typed configs, a run folder, errors in one line.

A command is a function of (config, run folder). What the user got wrong ends in one line on stderr and exit status 1;
``CLIPMAPPER_TRACE=1`` in the environment shows the stack trace instead.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper.config.data import DATA_SCHEMAS
from clipmapper.config.schema import Config
from clipmapper.config.tasks import TaskConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.vqa.config import VQATaskConfig

PROJECT = Path(__file__).resolve().parent.parent
# Python looks into a script's own folder first, where scripts/explain.py would stand for the package explain.
sys.path[:] = [folder for folder in sys.path if not (Path(folder) / "explain.py").is_file()]
OmegaConf.register_new_resolver("project", lambda: str(PROJECT), replace=True)

TASK_SCHEMAS: dict[str, type[TaskConfig]] = {"vqa": VQATaskConfig, "caption": CaptionTaskConfig}
Task = Callable[[DictConfig, Path], None]


def command(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Makes a command of a function of (composed config, run folder); ``configs/{config_name}.yaml`` is its config."""

    def decorate(task: Task) -> Callable[[], None]:
        def run(config: DictConfig) -> None:
            folder = Path(HydraConfig.get().runtime.output_dir)
            logging.getLogger().setLevel(logging.WARNING)  # open_clip tells its life story at INFO
            print(f"run folder: {folder}", flush=True)
            with _errors_in_one_line(folder):  # Hydra would print a line of its own above ours
                OmegaConf.save(config, folder / "config.yaml", resolve=True)
                task(config, folder)
            print(f"results are in {folder}", flush=True)

        def main() -> None:
            with _errors_in_one_line():
                # Told to show full errors, Hydra hands every exception on to us.
                os.environ["HYDRA_FULL_ERROR"] = "1"
                wrapped = hydra.main(version_base=None, config_path=str(PROJECT / "configs"), config_name=config_name)
                wrapped(run)()

        main.__doc__ = task.__doc__
        return main

    return decorate


@contextmanager
def _errors_in_one_line(folder: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if os.environ.get("CLIPMAPPER_TRACE") == "1" or not _is_the_users(error):
            raise
        print(f"error: {_one_line(error, folder)}", file=sys.stderr)
        sys.exit(1)


def _is_the_users(error: Exception) -> bool:
    """Of ValueErrors, only the one with which Hydra meets ``data=null``."""
    plain = isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException | UserError)
    return not plain or str(error).startswith("Config group override")


def _one_line(error: Exception, folder: Path | None) -> str:
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return key_problem(cause)
    if isinstance(error, OSError) and not isinstance(error, UserError):
        name = error.filename or folder or "files"  # a full disk has no name
        return f"{name}: {error.strerror or error}; check that the folder exists, is writable and has space left"
    return " ".join(str(error).split())


def _missing_choice(error: MissingConfigException) -> str:
    """Hydra knows the options of a group; put them on one line."""
    text = " ".join(str(error).split("Config search path")[0].split())
    found = re.search(r"Could not find '([^']+)'(?: Available options in '[^']+': (.*))?", text)
    if not found:
        return text
    options = f"; choose one of: {', '.join(found[2].split())}" if found[2] else ""
    group, _, choice = found[1].rpartition("/")
    return f"there is no {group}={choice}{options}" if group else f"there is no config {choice}{options}"


def typed(config: DictConfig, schema: type[Any] = Config) -> Any:
    """The composed config as dataclasses of ``schema`` (a subclass of :class:`Config`).

    Raises ``UserError`` naming the key where one is unknown, missing or of the wrong kind.
    """
    sections = [f.name for f in fields(schema)]
    unknown = [str(key) for key in config if key not in sections]
    if unknown:
        raise UserError(_unknown_key(unknown[0], sections))
    shaped = OmegaConf.structured(schema)
    for section, schemas in (("task", TASK_SCHEMAS), ("data", DATA_SCHEMAS)):
        if section in sections:
            shaped[section] = _named_schema(config, section, schemas)
    try:
        merged = OmegaConf.merge(shaped, config)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"config key {missing[0]} has no value: give {missing[0]}=…")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error


def _named_schema(config: DictConfig, section: str, schemas: Mapping[str, type[Any]]) -> Any:
    name = OmegaConf.select(config, f"{section}.name")
    if name not in schemas:
        raise UserError(f"{section}.name={name} is not one of: {', '.join(schemas)}")
    return OmegaConf.structured(schemas[name])


def key_problem(error: OmegaConfBaseException) -> str:
    """One line for a key that OmegaConf refused, with what would have been right."""
    key = str(error.full_key or error.key or "")
    first = str(error.msg or error).splitlines()[0]
    parent = error.parent_node
    if parent is not None and "not in" in first and hasattr(parent, "keys"):
        prefix = key.rpartition(".")[0]
        return _unknown_key(key, [f"{prefix}.{name}" if prefix else str(name) for name in parent])
    return f"config key {key}: {first}" if key else first


def _unknown_key(key: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown config key {key}; {hint}valid here: {', '.join(sorted(valid))}"
