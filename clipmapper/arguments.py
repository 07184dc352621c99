"""Arguments of the commands: what Hydra gets for each one, and error messages that name the argument."""

from __future__ import annotations

import re

from clipmapper.places import CONFIGS

_SEVERAL = ("explainer", "measure")  # groups of which several members can run
# Matches ``group.names=…``, ``group.NAME={…}`` and ``group.NAME.KEY=…`` for these groups.
_BY_NAME = re.compile(rf"({'|'.join(_SEVERAL)})\.(names=|[^.=]+=\{{|[^.=]+\.[^=]+=)")


def quoted(argument: str, keys: tuple[str, ...]) -> str:
    """Quote the value of an override of one of ``keys`` for Hydra; return any other argument unchanged.

    ``${`` in the value is no interpolation. Values that are already quoted, and ``null``, stay unchanged otherwise.
    """
    key, _, value = argument.partition("=")
    if key not in keys or value == "null":
        return argument
    if value[:1] in ("'", '"'):
        return re.sub(r"(?<!\\)\$\{", r"\\${", argument)
    escaped = without_interpolation(value)
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), escaped)
    return f"{key}='{escaped}'"


def without_interpolation(text: str) -> str:
    r"""Return a text that OmegaConf reads as ``text``: ``${`` is escaped as ``\${``, and backslashes before it too."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def as_added(argument: str) -> str:
    """Prefix an option given by name with ``++``; return any other argument unchanged.

    The prefix makes Hydra accept the key, which no composed config contains.
    """
    return f"++{argument}" if _BY_NAME.match(argument) else argument


def argument_problem(text: str) -> str:
    """Return one line about an argument that Hydra refused with the message ``text``."""
    several = re.match(r"Ambiguous value for argument '\+*([^=]+)=(.*?)' 1\. ", text)
    return _several_values(*several.groups()) if several else text


def _several_values(key: str, values: str) -> str:
    """Return what to write instead of ``KEY=A,B``, which Hydra accepts only in a sweep."""
    ways = ["to run the command once for each of them, add --multirun"]
    if key in _SEVERAL:
        ways.append(f"to use them in one run, give {key}.names=[{values}]")
    elif not (CONFIGS / key).is_dir():
        ways.append(f"a list is written {key}=[{values}]")
    return f"{key}={values}: {'; '.join(ways)}"
