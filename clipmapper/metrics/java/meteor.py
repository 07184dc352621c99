"""METEOR 1.5 (Denkowski and Lavie, 2014) through the Java program of pycocoevalcap: one process for the whole program.

The process takes ten seconds to load its paraphrases, then scores about a thousand captions a second. Its protocol is
one line in, one line out: ``SCORE ||| reference ||| … ||| candidate`` answers the statistics of a caption, ``EVAL |||
statistics ||| …`` one score for each and then that of all of them together.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence

from clipmapper.metrics.java.process import PACKAGE, NotAvailable, java_command, reason
from clipmapper.metrics.tokens import one_line

_JAR = PACKAGE / "meteor" / "meteor-1.5.jar"
_AT_ONCE = 32  # captions sent before their answers are read; the answers are few enough to wait in the pipe
_NUMBERS = re.compile(r"[\d.eE+ -]+")


def meteor_command() -> list[str]:
    """Starts METEOR as pycocoevalcap does; raises ``NotAvailable`` where there is no Java."""
    return java_command("-Xmx2G", "-jar", str(_JAR), "-", "-", "-stdio", "-l", "en", "-norm")


class Meteor:
    """A METEOR process. One that fails, or does not answer within ``timeout`` seconds, is ended and of no more use.

    Its standard error goes to an unnamed temporary file: a pipe that nobody reads would fill up and halt it.
    """

    def __init__(self, command: Sequence[str], timeout: float = 600.0):
        self._timeout, self._late = timeout, False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            raise NotAvailable(f"java cannot be started ({error.strerror}); install a Java runtime") from error

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """METEOR of all tokenised candidates together, and of each; raises ``NotAvailable`` where the process fails."""
        lines = [_score_line(c, r) for c, r in zip(candidates, references, strict=True)]
        statistics: list[str] = []
        for i in range(0, len(lines), _AT_ONCE):
            batch = lines[i : i + _AT_ONCE]
            statistics += self._ask(batch, len(batch))
        *each, together = self._ask([" ||| ".join(["EVAL", *statistics])], len(statistics) + 1)
        return float(together), [float(score) for score in each]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, lines: Sequence[str], replies: int) -> list[str]:
        assert self._process.stdin is not None
        watchdog = threading.Timer(self._timeout, self._give_up)  # ends writes and reads that block
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
        assert self._process.stdout is not None
        reply = self._process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise self._failure()
        text = reply.decode().strip()
        if not _NUMBERS.fullmatch(text):
            raise NotAvailable(f"it answered {text[:80]!r} instead of numbers; reinstall pycocoevalcap")
        return text

    def _failure(self) -> NotAvailable:
        if self._late:
            return NotAvailable(f"no answer within {self._timeout:g} s; try again on a less busy machine")
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return NotAvailable(f"its process ended ({reason(self._errors.read())}); mend that, it needs 2 GB of memory")


def _score_line(candidate: str, references: Sequence[str]) -> str:
    fields = [one_line(text).replace("|||", " ") for text in (*references, candidate)]
    return " ||| ".join(["SCORE", *fields])


class SharedMeteor:
    """One METEOR process for the whole program, started by the first call and kept until it is closed.

    Args:
        start: Starts a process.
    """

    def __init__(self, start: Callable[[], Meteor]):
        self._start, self._lock = start, threading.Lock()
        self._running: dict[int, Meteor] = {}  # by process id: a forked child must not write into its parent's pipe

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """METEOR of all tokenised candidates together, and of each, against one or more references each.

        Raises ``NotAvailable`` where there is no Java or the process fails; the next call starts it anew.
        """
        with self._lock:
            meteor = self._running.get(os.getpid()) or self._running.setdefault(os.getpid(), self._start())
            try:
                return meteor.scores(candidates, references)
            except BaseException:  # an interrupt too: the answers still under way would be taken for the next ones
                self.close()
                raise

    def close(self) -> None:
        """Ends the process; the next call starts another."""
        if meteor := self._running.pop(os.getpid(), None):
            meteor.close()


METEOR = SharedMeteor(lambda: Meteor(meteor_command()))
atexit.register(METEOR.close)
