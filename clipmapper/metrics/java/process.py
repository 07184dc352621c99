"""Running the Java programs that pycocoevalcap contains, independently of the machine's language."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pycocoevalcap.bleu import bleu

from clipmapper.process.workers import end_with_thread

PACKAGE = Path(bleu.__file__).parents[1]

# These flags override the machine's language: METEOR fails on numbers with a decimal comma, and Turkish lower case
# changes tokens.
_FLAGS = (
    "-Duser.language=en",
    "-Duser.country=US",
    "-Duser.language.format=en",
    "-Duser.country.format=US",
    "-Dfile.encoding=UTF-8",
)


class NotAvailable(Exception):
    """A metric can't be computed on this machine; the message is one line with the reason and the fix."""


def java_command(*arguments: str) -> list[str]:
    """Return the command that runs Java with these arguments.

    Raises:
        NotAvailable: Java is missing.
    """
    java = shutil.which("java")
    if java is None:
        raise NotAvailable("no java found; install a Java runtime")
    return [java, *_FLAGS, *arguments]


def run_java(*arguments: str, given: str = "", timeout: float = 600.0) -> subprocess.CompletedProcess[bytes]:
    """Run Java until it ends, with ``given`` as its standard input.

    Raises:
        NotAvailable: Java is missing, fails, or takes more than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            java_command(*arguments),
            input=given.encode(),
            capture_output=True,
            timeout=timeout,
            preexec_fn=end_with_thread,
        )
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"java did not end within {timeout:g} s; try again on a less busy machine") from None
    except OSError as error:
        raise not_started(error) from error
    if done.returncode:
        raise NotAvailable(f"java failed ({reason(done.stderr)}); fix this or install another Java runtime")
    return done


def not_started(error: OSError) -> NotAvailable:
    """Return the error for a program, or the temporary file of its output, that the system does not give."""
    why = error.strerror or error
    return NotAvailable(f"java cannot be started ({why}); install a Java runtime, and set TMPDIR to a writable folder")


def reason(errors: bytes) -> str:
    """Return the line of a Java program's standard error that looks like the error, otherwise the last line."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    found = (line for line in lines if re.search(r"error|exception|unable|unrecognized", line, re.IGNORECASE))
    return next(found, lines[-1] if lines else "no message")[:200]
