"""Arguments of the commands: what Hydra gets for each one, and error messages that name the argument.

Hydra reads a value as text, a number, a list or a call, so that ``=``, ``,``, spaces, brackets and quotes have a
meaning. Paths and sentences are taken as typed instead: their values are quoted for Hydra here.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from clipmapper.config.groups import composed
from clipmapper.errors import UserError
from clipmapper.help import about_command
from clipmapper.places import CONFIGS

#: Keys whose values are taken as typed: paths, names of files, and texts.
AS_TYPED = frozenset(
    (
        *("checkpoint", "resume", "merge", "output", "image", "question", "answer", "against", "prompt"),
        *("predictions", "questions", "annotations", "references"),
        *("data.root", "data.file", "data.answers_file", "data.images", "data.karpathy", "data.captions"),
        *("paths.root", "paths.runs", "paths.data", "paths.cache"),
        *("encoder.model", "encoder.weights", "model.path", "model.architecture", "model.weights"),
        *("logger.project", "hydra.run.dir", "hydra.sweep.dir"),
    )
)
_RUN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
#: Options of the commands' own, and the arguments that they stand for.
FLAGS = {"--yes": "yes=true"}
#: Keys with lists whose items are taken as typed.
LISTS_AS_TYPED = frozenset({"runs", "shared"})

_SEVERAL = ("explainer", "measure")  # groups of which several members can run
# Matches ``group.names=…``, ``group.NAME={…}`` and ``group.NAME.KEY=…`` for these groups.
_BY_NAME = re.compile(
    rf"({'|'.join(_SEVERAL)})\.(names=|[^.=]+=\{{|[^.=]+\.[^=]+=)"
    r"|(data\.extra_questions|model\.layers)(=\{|\.)"  # whose keys are names
)
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_PART = re.compile(rf"\s*(?:{_QUOTED})\s*(?=,|\Z)|[^,]+", re.DOTALL)  # a part of a value between commas
_NO_NAME = re.compile(r"null|true|false|[+-]?(inf|nan|[\d._]+(e[+-]?\d+)?)|\{.*", re.IGNORECASE | re.DOTALL)
_SWEEP = re.compile(r"(choice|sort|shuffle|tag|glob)\(.*\)", re.DOTALL)  # Hydra's functions for the values of a sweep


def for_hydra(arguments: Sequence[str], command: str | None = None) -> list[str]:
    """Return the command-line arguments that Hydra gets.

    Args:
        arguments: The arguments as they were typed.
        command: The command, for messages about what it takes.

    Raises:
        UserError: An option is unknown, an argument is not ``KEY=VALUE``, or a list is given for a config group.
    """
    arguments = [FLAGS.get(argument, argument) for argument in arguments]
    options = _options(arguments)
    sweep = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
    given = set(options.overrides)
    for argument in given:
        if (several := _check_form(argument, sweep)) is not None:
            model = [each for each in given if re.fullmatch(r"model=\w+", each)]
            raise UserError(
                _several_values(*several) if _takes(command, several[0], model) else _foreign(several[0], command)
            )
    return [as_added(quoted(argument, sweep)) if argument in given else argument for argument in arguments]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return get_args_parser().parse_args(arguments)
    except SystemExit as leaving:
        if leaving.code:
            problem = said.getvalue().strip().splitlines()[-1].partition("error: ")[2]
            raise UserError(f"{problem}; --help shows examples, and --hydra-help all options") from None
        raise


def _check_form(argument: str, sweep: bool) -> tuple[str, str] | None:
    """Return the group and the names of an argument with several members of a group in one run; None for any other.

    Raises:
        UserError: The argument has no ``=``, or a value of a group that is no name.
    """
    key, equal, value = argument.lstrip("+").partition("=")
    if not equal and not argument.startswith("~"):
        raise UserError(f"{argument} is not KEY=VALUE; write {argument}=…, or correct the option")
    if key in _RUN_FOLDERS and value.strip("'\"").strip() in ("", "null"):  # Hydra would take the current folder
        raise UserError(f"{key}={value} is empty: give a path")
    if not (CONFIGS / key).is_dir() or not key:
        return None
    names = value.strip("[] ")
    if value.startswith("[") and "," not in names:
        raise UserError(f"{argument}: give one name, {key}={names or 'NAME'}")
    if _NO_NAME.fullmatch(value):
        raise UserError(f"{argument} is not the name of a file in {key}; give {key}=NAME, or leave it out")
    if value.startswith("[") or (not sweep and re.match(r"[^'\"({]*,", value)):
        return key, names
    return None


def quoted(argument: str, sweep: bool = False) -> str:
    """Quote the value of an override whose key is taken as typed; return any other argument unchanged.

    ``null`` stays unchanged. A value, or an item of a list, that is in quotes is taken without them.

    Args:
        argument: An argument of a command.
        sweep: Whether commas separate the values of several runs.
    """
    key, _, value = argument.partition("=")
    name = key.lstrip("+")
    if name in LISTS_AS_TYPED and value[:1] == "[" and value[-1:] == "]":
        return f"{key}=[{','.join(map(_literal, _parts(value[1:-1])))}]"
    if name not in AS_TYPED:
        return argument
    if not sweep or name.startswith("hydra."):
        return f"{key}={_literal(value)}"
    return argument if _SWEEP.fullmatch(value) else f"{key}={','.join(map(_literal, _parts(value)))}"


def _parts(values: str) -> Iterator[str]:
    """Yield the parts between the commas that are not in quotes, without spaces around them."""
    for found in _PART.finditer(values):
        yield found[0].strip()


def _literal(value: str) -> str:
    """Return Hydra's notation of a text, in which nothing is a special character and ``${`` no interpolation."""
    if value == "null":
        return value
    if re.fullmatch(_QUOTED, value, re.DOTALL):
        mark = value[0]
        value = re.sub(rf"(\\+)({mark}|\Z)", lambda found: len(found[1]) // 2 * "\\" + found[2], value[1:-1])
    value = without_interpolation(value)
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def without_interpolation(text: str) -> str:
    r"""Return a text that OmegaConf reads as ``text``: ``${`` is escaped as ``\${``, and backslashes before it too."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def as_added(argument: str) -> str:
    """Prefix an option or another value given by name with ``++``; return any other argument unchanged.

    The prefix makes Hydra accept the key, which no composed config contains.
    """
    return f"++{argument}" if _BY_NAME.match(argument) else argument


def argument_problem(error: Exception, command: str | None = None) -> str:
    """Return one line about an argument that Hydra refused, and about what the command takes."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return _grammar_problem(error.override, text.partition(" See https://hydra.cc")[0])
    if foreign := re.match(r"Could not override '([^'@]+)", text):
        return _foreign(foreign[1], command)
    several = re.match(r"Ambiguous value for argument '\+*([^=]+)=(.*?)' 1\. ", text)
    return _several_values(*several.groups()) if several else text


def _takes(command: str | None, group: str, model: Sequence[str] = ()) -> bool:
    """Return whether a command has a config group; True if the command is not known.

    Args:
        command: The command.
        group: The config group.
        model: The choice of the model, on which it depends, if there is one.
    """
    if command is None:
        return True
    try:
        composed(command, [*model, f"{group}=_"])  # no file has this name
    except MissingConfigException:
        return True
    except HydraException:
        return False
    return True


def _foreign(group: str, command: str | None) -> str:
    """Return what to write instead of a config group that the command does not have."""
    if command is None or (group in ("task", "mapper", "encoder") and _takes(command, "model")):
        return (
            f"{group}=… is {'not for this command' if command is None else 'for model=clipmapper only'}; leave it out"
        )
    if (group, command) == ("measure", "perturb"):
        return "measure=… names one file, and perturb takes several: give measure.names=[NAME,…]"
    example = next(filter(None, (each.partition(".py ")[2] for each in about_command(command).examples)))
    return f"{group}=… is not for {command}; leave it out, or give a key that it has, such as {example}"


def _grammar_problem(argument: str, said: str) -> str:
    """Return what to write instead of an argument that Hydra's grammar does not have."""
    key, _, value = argument.partition("=")
    if not re.fullmatch(r"[+~]{0,2}[\w./@$-]+", key, re.ASCII):
        return f"{argument}: {key or 'an empty text'} is not a config key; --help shows examples of arguments"
    why = "characters such as = have a meaning of their own"
    if called := re.match(r".*while evaluating '(.+?)': (.*?)( Available: .*)?$", said):
        why = f"{called[1]} cannot be evaluated ({called[2]})"
    return f"{argument}: {why}; put text in quotes: {_example(key, value)}"


def _example(key: str, value: str) -> str:
    """Return the argument as it is written in a shell with a value, or the items of a list, in quotes."""
    listed = value[:1] == "[" and value[-1:] == "]"
    parts = [part.strip("'\"") for part in _parts(value.strip("[]") if listed else value)] if listed else [value]
    texts = ",".join(part if re.fullmatch(r"[\w.]+", part, re.ASCII) else double_quoted(part) for part in parts)
    return shlex.quote(f"{key}=[{texts}]" if listed else f"{key}={texts}")


def double_quoted(text: str) -> str:
    """Return a text in quotes, as an item of a list is written that has commas."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def _several_values(key: str, values: str) -> str:
    """Return what to write instead of ``KEY=A,B``, which Hydra accepts only in a sweep."""
    ways = [f"to run the command once for each of them, add --multirun {key}={values}"]
    if key in _SEVERAL:
        ways.append(f"to use them in one run, give {key}.names=[{values}]")
    elif not (CONFIGS / key).is_dir():
        ways.append(f"a list is written {key}=[{values}]")
    return f"{key}={values}: {'; '.join(ways)}"
