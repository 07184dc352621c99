"""Stages of an experiment, and the state of each: the file ``stages.json`` of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipmapper.arguments import double_quoted
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.storage.checksums import sealed
from perturbation.cli import COMMANDS

STAGES = "stages.json"
WAITING, DONE, FAILED, SKIPPED = "waiting", "done", "failed", "skipped"
_REFERENCE = re.compile(r"<(\w+)>")  # the folder of another stage, in an argument


@dataclass
class Stage:
    """One command of an experiment, with its state."""

    name: str  #: name of its folder in the experiment's folder
    title: str  #: what it does, for people
    command: str  #: name of the command
    arguments: list[str]  #: overrides; ``<NAME>`` stands for the folder of another stage
    after: list[str]  #: names of stages that must have ended well before, besides those that the arguments name
    status: str = WAITING  #: waiting, done, failed or skipped
    seconds: float = 0.0  #: time that the last run took
    error: str | None = None  #: last line of a failed run, or why the stage was skipped

    @property
    def needs(self) -> list[str]:
        """Names of the stages that must have ended well before."""
        return [*self.after, *(name for argument in self.arguments for name in _REFERENCE.findall(argument))]

    def filled(self, folder: Path) -> list[str]:
        """Return the arguments with the folders of other stages, which are in ``folder``."""
        return [_filled(argument, folder) for argument in self.arguments]


def _filled(argument: str, folder: Path) -> str:
    """Return an argument with the folders of other stages; in a list, they are put in quotes."""
    write = double_quoted if "=[" in argument else str
    return _REFERENCE.sub(lambda found: write(str(folder / found[1])), argument)


def planned(config: Mapping[str, Mapping[str, Any]], shared: Iterable[str]) -> list[Stage]:
    """Return the stages that a config lists.

    Args:
        config: By stage name: ``title``, ``command``, ``arguments`` and, if it has to wait for others, ``after``.
        shared: Arguments of every stage.

    Raises:
        UserError: An entry lacks a key or has an unknown one, names no command, or uses a stage that does not come
            before it.
    """
    stages: list[Stage] = []
    for name, entry in config.items():
        at = f"stages.{name}"
        if set(entry) - {"after"} != {"title", "command", "arguments"}:
            raise UserError(f"{at} has the keys {', '.join(sorted(entry))}; give title, command, arguments and after")
        if entry["command"] not in COMMANDS or entry["command"] == "reproduce":
            raise UserError(f"{at}.command={entry['command']} is no command of a stage; see clipmapper --help")
        arguments, after = [*shared, *map(str, entry["arguments"])], list(entry.get("after", []))
        stage = Stage(name, entry["title"], entry["command"], arguments, after)
        if unknown := [need for need in stage.needs if need not in {before.name for before in stages}]:
            raise UserError(f"{at} needs {unknown[0]}, which is no stage before {name}")
        stages.append(stage)
    return stages


def read_stages(folder: Path) -> list[Stage]:
    """Return the stages of an experiment that ran before, with their state; none if it did not.

    Raises:
        UserError: The state file is damaged.
    """
    path = folder / STAGES
    if not path.is_file():
        return []
    held = read_json(path, own=True)
    try:
        return [Stage(**entry) for entry in held]
    except TypeError as error:
        raise UserError(f"{path}: not a list of stages; remove it to run all stages again") from error


def restore(stages: Iterable[Stage], folder: Path) -> list[str]:
    """Set the state of stages that ran before with the same command and arguments.

    Returns:
        The names of the stages that ran before with another command or other arguments.

    Raises:
        UserError: The state file is damaged.
    """
    known = {stage.name: stage for stage in read_stages(folder)}
    changed = []
    for stage in stages:
        before = known.get(stage.name, stage)
        if (before.command, before.arguments) == (stage.command, stage.arguments):
            stage.status, stage.seconds, stage.error = before.status, before.seconds, before.error
        else:
            changed.append(stage.name)
    return changed


def save(stages: Iterable[Stage], folder: Path) -> None:
    """Write the state of all stages, each with a checksum."""
    write_json(folder / STAGES, [sealed(asdict(stage)) for stage in stages])
