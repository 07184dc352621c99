"""The Java programs that pycocoevalcap brings: where they lie, and how to run them so that no locale changes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pycocoevalcap.bleu import bleu

PACKAGE = Path(bleu.__file__).parents[1]

# Numbers with a decimal comma end METEOR, Turkish lower case changes tokens: the language of the machine is overruled.
_FLAGS = (
    "-Duser.language=en",
    "-Duser.country=US",
    "-Duser.language.format=en",
    "-Duser.country.format=US",
    "-Dfile.encoding=UTF-8",
)


class NotAvailable(Exception):
    """A metric can't be computed on this machine; the message is one line, the reason and the mend."""


def java_command(*arguments: str) -> list[str]:
    """The command that runs Java with these arguments; raises ``NotAvailable`` where there is no Java."""
    java = shutil.which("java")
    if java is None:
        raise NotAvailable("no java found; install a Java runtime")
    return [java, *_FLAGS, *arguments]


def run_java(*arguments: str, given: str = "", timeout: float = 600.0) -> subprocess.CompletedProcess[bytes]:
    """Runs Java to its end on a text; raises ``NotAvailable`` where it fails or takes more than ``timeout`` seconds."""
    try:
        done = subprocess.run(java_command(*arguments), input=given.encode(), capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"java did not end within {timeout:g} s; try again on a less busy machine") from None
    except OSError as error:
        raise NotAvailable(f"java cannot be started ({error.strerror}); install a Java runtime") from error
    if done.returncode:
        raise NotAvailable(f"java failed ({reason(done.stderr)}); mend that or install another Java runtime")
    return done


def reason(errors: bytes) -> str:
    """The telling line of what a Java program wrote to its standard error."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    telling = (line for line in lines if re.search(r"error|exception|unable|unrecognized", line, re.IGNORECASE))
    return next(telling, lines[-1] if lines else "no message")[:200]
