"""METEOR 1.5 (Denkowski and Lavie, 2014), computed by a long-running process of pycocoevalcap's Java program.

The process takes ten seconds to load its paraphrases, then scores about a thousand captions per second. It reads one
request per line:

- ``SCORE ||| reference ||| … ||| candidate``: it answers with one line, the statistics of the candidate.
- ``EVAL ||| statistics ||| …``: it answers with one line for the score of each, then one for the score of all together.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence

from clipmapper.console import progress
from clipmapper.metrics.java.process import PACKAGE, NotAvailable, java_command, not_started, reason
from clipmapper.metrics.tokens import one_line
from clipmapper.process.workers import end_with_thread

_JAR = PACKAGE / "meteor" / "meteor-1.5.jar"
_AT_ONCE = 32  # captions sent before their answers are read; the pipe can hold that many unread answers
_NUMBERS = re.compile(r"[\d.eE+ -]+")


def meteor_command() -> list[str]:
    """Return the command that starts METEOR with pycocoevalcap's settings.

    Raises:
        NotAvailable: Java is missing.
    """
    return java_command("-Xmx2G", "-jar", str(_JAR), "-", "-", "-stdio", "-l", "en", "-norm")


class Meteor:
    """A METEOR process; after an error it is ended and can't be used again.

    Its standard error goes to an unnamed temporary file, because an unread pipe would fill up and stop the process.

    Args:
        command: The command that starts METEOR.
        timeout: Seconds to wait for an answer before the process is ended.

    Raises:
        NotAvailable: The command can't be started.
    """

    def __init__(self, command: Sequence[str], timeout: float = 600.0):
        self._timeout, self._late = timeout, False
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                preexec_fn=end_with_thread if threading.current_thread() is threading.main_thread() else None,
                start_new_session=True,  # Ctrl-C is for this process, which ends METEOR
            )
        except OSError as error:
            raise not_started(error) from error

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """Return METEOR of all tokenised candidates together, and of each, against their tokenised references.

        Raises:
            NotAvailable: The process fails or doesn't answer in time.
        """
        lines = [_score_line(c, r) for c, r in zip(candidates, references, strict=True)]
        statistics: list[str] = []
        with progress(len(lines), "scoring captions by METEOR", "captions") as advance:
            for i in range(0, len(lines), _AT_ONCE):
                batch = lines[i : i + _AT_ONCE]
                statistics += self._ask(batch, len(batch))
                advance(len(batch))
        answers = self._ask([" ||| ".join(["EVAL", *statistics])], len(statistics) + 1)
        try:
            *each, together = map(float, answers)
        except ValueError as error:
            raise _odd(str(error)) from None
        return together, each

    def close(self) -> None:
        """End the process and delete its temporary file."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, lines: Sequence[str], replies: int) -> list[str]:
        """Send lines to the process and read as many lines as ``replies``."""
        assert self._process.stdin is not None
        # The watchdog kills the process after the timeout, which unblocks reads and writes.
        watchdog = threading.Timer(self._timeout, self._give_up)
        watchdog.start()
        try:
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
            self._process.stdin.flush()
            return [self._reply() for _ in range(replies)]
        except OSError:  # a broken pipe
            raise self._failure() from None
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _reply(self) -> str:
        """Read one line of numbers."""
        assert self._process.stdout is not None
        reply = self._process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise self._failure()
        text = reply.decode(errors="replace").strip()
        if not _NUMBERS.fullmatch(text):
            raise _odd(f"it answered {text[:80]!r} instead of numbers")
        return text

    def _failure(self) -> NotAvailable:
        """Return the error of a process that ended or did not answer in time."""
        if self._late:
            return NotAvailable(f"no answer within {self._timeout:g} s; try again on a less busy machine")
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return NotAvailable(
            f"its process ended ({reason(self._errors.read())}); fix this first, METEOR needs 2 GB of memory"
        )


def _odd(what: str) -> NotAvailable:
    return NotAvailable(f"{what}; reinstall pycocoevalcap")


def _score_line(candidate: str, references: Sequence[str]) -> str:
    fields = [one_line(text).replace("|||", " ") for text in (*references, candidate)]
    return " ||| ".join(["SCORE", *fields])


class SharedMeteor:
    """A METEOR process shared by all threads; the first call starts it, and it runs until it is closed.

    Args:
        start: Function that starts a METEOR process.
    """

    def __init__(self, start: Callable[[], Meteor]):
        self._start, self._lock = start, threading.Lock()
        self._running: dict[int, Meteor] = {}  # by id of this process: a forked child must not use its parent's METEOR

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """Return METEOR of all tokenised candidates together, and of each, against one or more references each.

        After an error, the next call starts a new process.

        Raises:
            NotAvailable: Java is missing, or the process fails.
        """
        with self._lock:
            meteor = self._running.get(os.getpid()) or self._running.setdefault(os.getpid(), self._start())
            try:
                return meteor.scores(candidates, references)
            except BaseException:
                # After an interrupt too: answers not yet read would be taken for those of the next call.
                self.close()
                raise

    def close(self) -> None:
        """End the process; the next call to :meth:`scores` starts a new one."""
        if meteor := self._running.pop(os.getpid(), None):
            meteor.close()


METEOR = SharedMeteor(lambda: Meteor(meteor_command()))
atexit.register(METEOR.close)
