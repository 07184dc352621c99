"""Errors that the user can fix: one line on stderr, and exit status 1.

Set ``CLIPMAPPER_TRACE=1`` in the environment to see the stack trace instead.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from clipmapper import console
from clipmapper.arguments import argument_problem
from clipmapper.config.checks import key_problem
from clipmapper.errors import UserError
from clipmapper.process import workers
from clipmapper.text import printable


@contextmanager
def errors_in_one_line(folder: Path | None = None, command: str | None = None) -> Iterator[None]:
    """Print the line of an error that the user can fix, and end the process.

    Args:
        folder: The run folder, if there is one.
        command: The command, for messages about what it takes.
    """
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if os.environ.get("CLIPMAPPER_TRACE") == "1" or not _is_user_error(error):
            raise
        last = printable(_one_line(error, folder, command))
        if not workers.tell_first(last):
            console.print_last(f"error: {last}")
        sys.exit(1)


def _is_user_error(error: Exception) -> bool:
    """Return whether the user can fix the error; the only such plain ValueError is Hydra's answer to ``data=null``."""
    plain = isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException | UserError)
    return not plain or str(error).startswith("Config group override")


def _one_line(error: Exception, folder: Path | None, command: str | None) -> str:
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return key_problem(cause)
    if isinstance(error, OSError) and not isinstance(error, UserError):
        name = error.filename or folder or "files"  # the error of a full disk has no file name
        return f"{name}: {error.strerror or error}; check that the folder exists, is writable and has space left"
    return argument_problem(error, command)


def _missing_choice(error: MissingConfigException) -> str:
    """Return Hydra's message about a missing config, which lists the options of its group, as one line."""
    text = " ".join(str(error).split("Config search path")[0].split())
    found = re.search(r"Could not find '([^']+)'(?: Available options in '[^']+': (.*))?", text)
    if not found:
        return text
    options = f"; choose one of: {', '.join(found[2].split())}" if found[2] else ""
    group, _, choice = found[1].rpartition("/")
    return f"there is no {group}={choice}{options}" if group else f"there is no config {choice}{options}"
