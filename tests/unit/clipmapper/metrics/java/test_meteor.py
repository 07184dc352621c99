"""Tests of the METEOR process with a fake program that answers immediately.

The fake's statistics are "1 <words>", and a caption's score is its number of words.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import program
from scored_captions import CANDIDATES, REFERENCES

from clipmapper.metrics.captions import score_captions
from clipmapper.metrics.java.meteor import METEOR, Meteor, SharedMeteor
from clipmapper.metrics.java.process import NotAvailable
from clipmapper.metrics.tokens import plain_tokens

FAKE = """
import os, sys, time
open({starts}, "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    command, *fields = line.rstrip("\\n").split(" ||| ")
    {misbehave}
    if command == "SCORE":
        print(1, len(fields[-1].split()), "0 " * 50, flush=True)
    else:
        for field in fields:
            print(field.split()[1].zfill(80))
        print(sum(float(f.split()[1]) for f in fields), flush=True)
"""


class Fake:
    """A shared METEOR whose ``java`` is a fake program in a temporary folder, which records its starts there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.write_program()
        self.shared = SharedMeteor(lambda: Meteor(self.command))

    def write_program(self, misbehave: str = "pass") -> None:
        """Write the program of the next process, which runs the code ``misbehave`` at each line that it reads."""
        body = FAKE.replace("{starts}", repr(str(self.folder / "starts"))).replace("{misbehave}", misbehave)
        program(self.folder / "java", body)

    @property
    def command(self) -> list[str]:
        return [str(self.folder / "java")]

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        return self.shared.scores(candidates, references)

    @property
    def starts(self) -> list[int]:
        return [int(line) for line in (self.folder / "starts").read_text().split()]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    fake = Fake(tmp_path)
    yield fake
    fake.shared.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_serves_every_call_and_every_thread(fake: Fake) -> None:
    results: list[tuple[float, list[float]]] = []

    def work(words: int) -> None:
        for _ in range(20):
            results.append(fake.scores(["w " * words, "one"], [["r"], ["r", "s"]]))

    threads = [threading.Thread(target=work, args=(words,)) for words in (3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((words + 1.0, [float(words), 1.0]) for words in (3, 5, 7) for _ in range(20))
    assert len(fake.starts) == 1


def test_separators_of_the_protocol_inside_a_caption_are_plain_text(fake: Fake) -> None:
    assert fake.scores(["a ||| b c\nd", "e"], [["r ||| s"], ["t"]]) == (5, [4, 1])


def test_the_process_ends_with_the_program(fake: Fake) -> None:
    code = "from clipmapper.metrics.java.meteor import METEOR\nassert METEOR.scores(['a b'], [['c']]) == (2, [2])\n"
    environment = {**os.environ, "PATH": str(fake.folder)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
    (pid,) = fake.starts
    assert not is_running(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_its_own_process(fake: Fake) -> None:
    fake.scores(["a"], [["b"]])
    child = os.fork()
    if child == 0:
        right = fake.scores(["a b c"], [["b"]]) == (3, [3])
        fake.shared.close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert fake.scores(["a b"], [["b"]]) == (2, [2])
    assert len(fake.starts) == 2


def test_much_output_on_standard_error_does_not_stop_the_process(fake: Fake) -> None:
    fake.write_program("sys.stderr.write('warning ' * 100_000)")
    assert fake.scores(["a b"], [["c"]]) == (2, [2])


def test_more_captions_than_a_pipe_holds_do_not_deadlock(fake: Fake) -> None:
    counts = [k % 50 for k in range(3000)]
    total, each = fake.scores(["a " * count for count in counts], [["word " * 500]] * 3000)
    assert (total, each) == (sum(counts), counts)


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        ("sys.exit('java.lang.OutOfMemoryError: heap')", r"its process ended \(java.lang.OutOfMemoryError: heap\)"),
        ("print('Error: specify hypothesis', flush=True)", "it answered 'Error: specify hypothesis' instead of"),
        ("print('0,5 0,2', flush=True)", "it answered '0,5 0,2' instead of numbers"),
        ("print('1 1', end='', flush=True); os._exit(0)", "its process ended"),
        ("if command == 'EVAL': sys.exit(3)", "its process ended"),
        (
            "if command == 'EVAL': print('0.5 0.2'); print(1, flush=True)",
            "could not convert string to float: '0.5 0.2'",
        ),
        (r"sys.stdout.buffer.write(b'\xff\n'); sys.stdout.flush()", "it answered '\ufffd' instead of numbers"),
        ("os.kill(os.getpid(), 9)", "its process ended"),
    ],
)
def test_a_failing_process_is_reported_and_the_next_call_starts_another(
    fake: Fake, misbehave: str, message: str
) -> None:
    fake.write_program(misbehave)
    with pytest.raises(NotAvailable, match=message):
        fake.scores(["a b"], [["c"]])
    fake.write_program()
    assert fake.scores(["a b"], [["c"]]) == (2, [2])
    first, second = fake.starts
    assert not is_running(first)
    assert is_running(second)


def test_a_failing_process_becomes_a_note_of_the_scores(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.write_program("sys.exit(3)")
    monkeypatch.setenv("PATH", str(fake.folder))
    METEOR.close()  # it may still run from another test
    scores = score_captions(CANDIDATES, REFERENCES, metrics=["METEOR", "CIDEr"], tokenize=plain_tokens)
    assert scores.notes["METEOR"].startswith("not available: its process ended")
    assert list(scores.corpus) == ["CIDEr"]


@pytest.mark.parametrize(
    "misbehave",
    [
        pytest.param("time.sleep(60)", marks=pytest.mark.slow),
        "if command == 'EVAL': print(1, flush=True); time.sleep(60)",
    ],
)
def test_a_silent_process_is_ended_after_the_timeout(fake: Fake, misbehave: str) -> None:
    fake.write_program(misbehave)
    silent = Meteor(fake.command, timeout=1.5)
    begin = time.monotonic()
    with pytest.raises(NotAvailable, match=r"no answer within 1\.5 s"):
        silent.scores(["a b"], [["c"]])
    assert time.monotonic() - begin < 20
    silent.close()


def test_a_process_that_does_not_read_is_ended_too() -> None:
    """The request is longer than the pipe's capacity, so that writing blocks."""
    deaf = Meteor([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1)
    with pytest.raises(NotAvailable, match="no answer within 1 s"):
        deaf.scores(["word " * 10**6], [["c"]])
    deaf.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals on this system")
def test_an_interrupt_ends_the_process(fake: Fake) -> None:
    """A late answer must not be taken for the answer to the next request."""
    fake.write_program("if 'slow' in line: time.sleep(60)")
    assert fake.scores(["a b"], [["c"]]) == (2, [2])
    with interrupted_after(0.5), pytest.raises(KeyboardInterrupt):
        fake.scores(["slow a b"], [["c"]])
    assert fake.scores(["a"], [["c"]]) == (1, [1])
    assert len(fake.starts) == 2


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt after some seconds, as Ctrl-C does, by a signal that pytest doesn't handle."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
