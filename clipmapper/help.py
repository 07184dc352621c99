"""Help of a command, read from the comments in its config files.

The comment at the top of ``configs/COMMAND.yaml`` has three parts: what the command does, lines with examples, and a
line ``keys:`` that names the most used keys. The comments behind these keys, in any of the files that the command is
composed of, say what they mean.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clipmapper.console import WIDTH
from clipmapper.places import CONFIGS

DEFAULTS = {"${model}": "clipmapper", "${task}": "vqa"}  # choices that follow that of another group, with its default
EXAMPLE, KEYS = "python scripts/", "keys: "

_FIXED_SPACE = "\u00a0"  # a line is not broken there
_KEY = re.compile(r'( *)"?(\w+)"?: *(.*?)(?: +# (.*))?$')
_DEFAULT = re.compile(r"  - (?:override )?/?([\w/]+)(?:: (\S+))?(?: +# (.*))?$")


class Key(NamedTuple):
    """A config key, or a config group, as it is written in a YAML file."""

    name: str
    default: str
    comment: str  #: empty if there is none


@dataclass(frozen=True)
class About:
    """The content of the comment at the top of a command's config."""

    purpose: str
    examples: tuple[str, ...]
    keys: tuple[str, ...]


def help_of(command: str) -> str:
    """Return the help of a command: its purpose, examples and most used keys, in lines of at most ``WIDTH`` columns."""
    about, known = about_command(command), {key.name: key for key in keys_of_command(command)}
    script = f"{EXAMPLE}{command}.py"
    program = script if Path(sys.argv[0]).name == f"{command}.py" else f"clipmapper {command}"
    width = max(map(len, about.keys)) + 4
    lines = [
        f"usage: {program} [KEY=VALUE] [GROUP=CHOICE] [--multirun]\n",
        f"{textwrap.fill(about.purpose, WIDTH)}\n",
        "examples:",
        *(f"  {example.replace(script, program)}" for example in about.examples),
        "\nmost used keys:",
        *(
            textwrap.fill(
                _meaning(known[name]), WIDTH, initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width
            )
            for name in about.keys
        ),
        "\n--cfg job prints all keys and their values, and --hydra-help the options of Hydra. The meaning of",
        "all keys is in docs/reference/config.md.",
    ]
    return "\n".join(lines).replace(_FIXED_SPACE, " ")


def _meaning(key: Key) -> str:
    """Return the key's comment, with its default unless that is missing, null, or taken from other keys."""
    shown = key.default not in ("???", "null") and "${" not in key.default
    return f"{key.comment} (default:{_FIXED_SPACE}{key.default})" if shown else key.comment


def about_command(command: str) -> About:
    """Read the comment at the top of a command's config."""
    text = (CONFIGS / f"{command}.yaml").read_text(encoding="utf-8")
    lines = [line.removeprefix("# ") for line in text.split("defaults:")[0].splitlines()]
    examples = tuple(line for line in lines if line.startswith(EXAMPLE))
    [keys] = [line.removeprefix(KEYS).split(", ") for line in lines if line.startswith(KEYS)]
    purpose = " ".join(line for line in lines if not line.startswith((EXAMPLE, KEYS)))
    return About(purpose, examples, tuple(keys))


def keys_of_command(command: str) -> Iterator[Key]:
    """Yield the keys and groups of a command, those of its groups' default files first and its own last."""
    yield from _keys_with_defaults(CONFIGS / f"{command}.yaml", "")


def _keys_with_defaults(path: Path, prefix: str) -> Iterator[Key]:
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if (found := _DEFAULT.match(line)) and found[1] not in ("_self_", "hydra/job_logging"):
            group, choice, comment = found[1], found[2], found[3]
            if choice is None:  # a file of a group, such as common/model, whose keys have no prefix
                yield from _keys_with_defaults(CONFIGS / f"{group}.yaml", "")
            elif choice != "null":
                yield Key(group, choice, comment or "")
                file = DEFAULTS.get(choice, choice)
                yield from _keys_with_defaults(CONFIGS / group / f"{file}.yaml", f"{group}.")
    own = "" if "# @package _global_" in text else prefix
    yield from (Key(f"{own}{key.name}", key.default, key.comment) for key in keys_of(path))


def keys_of(path: Path) -> Iterator[Key]:
    """Yield the keys of a YAML file with their values as they are written, and the comments behind them."""
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := _KEY.match(line):
            parents = [(depth, parent) for depth, parent in parents if depth < len(found[1])]
            parents.append((len(found[1]), found[2]))
            if found[3] and found[2] != "_target_":
                yield Key(".".join(name for _, name in parents), found[3], found[4] or "")
