"""The METEOR process, by a stand-in that answers at once.

Its statistics are "1 <words>", and a caption's score is its number of words.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from programs import program
from scored_captions import CANDIDATES, REFERENCES

from clipmapper.metrics.captions import score_captions
from clipmapper.metrics.java import meteor
from clipmapper.metrics.java.process import NotAvailable
from clipmapper.metrics.tokens import plain_tokens

FAKE = """
import os, sys, time
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Makes ``meteor_scores`` start a stand-in that misbehaves as told; the command's last part lists the starts."""
    monkeypatch.setattr(meteor, "_running", {})

    def make(misbehave: str = "pass") -> list[str]:
        script = program(tmp_path / "fake.py", FAKE.replace("{misbehave}", misbehave))
        command = [sys.executable, str(script), str(tmp_path / "starts")]
        monkeypatch.setattr(meteor, "meteor_command", lambda: command)
        return command

    yield make
    meteor._close()


def starts(command: Sequence[str]) -> list[int]:
    return [int(line) for line in Path(command[-1]).read_text().split()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_serves_every_call_and_every_thread(fake: Callable[..., list[str]]) -> None:
    command = fake()
    results: list[tuple[float, list[float]]] = []

    def work(words: int) -> None:
        for _ in range(20):
            results.append(meteor.meteor_scores(["w " * words, "one"], [["r"], ["r", "s"]]))

    threads = [threading.Thread(target=work, args=(words,)) for words in (3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((words + 1.0, [float(words), 1.0]) for words in (3, 5, 7) for _ in range(20))
    assert len(starts(command)) == 1


def test_marks_of_the_protocol_in_a_caption_are_no_marks(fake: Callable[..., list[str]]) -> None:
    fake()
    assert meteor.meteor_scores(["a ||| b c\nd", "e"], [["r ||| s"], ["t"]]) == (5, [4, 1])


def test_the_process_ends_with_the_program(fake: Callable[..., list[str]]) -> None:
    command = fake()
    code = (
        "from clipmapper.metrics.java import meteor\n"
        f"meteor.meteor_command = lambda: {command!r}\n"
        "assert meteor.meteor_scores(['a b'], [['c']]) == (2, [2])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (pid,) = starts(command)
    assert not is_running(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_its_own(fake: Callable[..., list[str]]) -> None:
    command = fake()
    meteor.meteor_scores(["a"], [["b"]])
    child = os.fork()
    if child == 0:
        right = meteor.meteor_scores(["a b c"], [["b"]]) == (3, [3])
        meteor._close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert meteor.meteor_scores(["a b"], [["b"]]) == (2, [2])
    assert len(starts(command)) == 2


def test_much_on_its_standard_error_does_not_halt_it(fake: Callable[..., list[str]]) -> None:
    fake("sys.stderr.write('warning ' * 100_000)")
    assert meteor.meteor_scores(["a b"], [["c"]]) == (2, [2])


def test_more_than_a_pipe_holds_does_not_deadlock(fake: Callable[..., list[str]]) -> None:
    fake()
    counts = [k % 50 for k in range(3000)]
    total, each = meteor.meteor_scores(["a " * count for count in counts], [["word " * 500]] * 3000)
    assert (total, each) == (sum(counts), counts)


@pytest.mark.parametrize(
    ("misbehave", "message"),
    [
        ("sys.exit('java.lang.OutOfMemoryError: heap')", r"its process ended \(java.lang.OutOfMemoryError: heap\)"),
        ("print('Error: specify hypothesis', flush=True)", "it answered 'Error: specify hypothesis' instead of"),
        ("print('0,5 0,2', flush=True)", "it answered '0,5 0,2' instead of numbers"),
        ("print('1 1', end='', flush=True); os._exit(0)", "its process ended"),
        ("if command == 'EVAL': sys.exit(3)", "its process ended"),
    ],
)
def test_a_failing_process_is_a_reason_and_the_next_call_starts_another(
    fake: Callable[..., list[str]], misbehave: str, message: str
) -> None:
    command = fake(misbehave)
    with pytest.raises(NotAvailable, match=message):
        meteor.meteor_scores(["a b"], [["c"]])
    fake()
    assert meteor.meteor_scores(["a b"], [["c"]]) == (2, [2])
    first, second = starts(command)
    assert not is_running(first)
    assert is_running(second)


def test_a_failing_process_is_a_note(fake: Callable[..., list[str]]) -> None:
    fake("sys.exit(3)")
    scores = score_captions(CANDIDATES, REFERENCES, metrics=["METEOR", "CIDEr"], tokenize=plain_tokens)
    assert scores.notes["METEOR"].startswith("not available: its process ended")
    assert list(scores.corpus) == ["CIDEr"]


@pytest.mark.parametrize("misbehave", ["time.sleep(60)", "if command == 'EVAL': print(1, flush=True); time.sleep(60)"])
def test_a_silent_process_is_ended_after_its_time(fake: Callable[..., list[str]], misbehave: str) -> None:
    silent = meteor.Meteor(fake(misbehave), timeout=1.5)
    begin = time.monotonic()
    with pytest.raises(NotAvailable, match=r"no answer within 1\.5 s"):
        silent.scores(["a b"], [["c"]])
    assert time.monotonic() - begin < 20
    silent.close()


def test_a_process_that_does_not_read_is_ended_too(fake: Callable[..., list[str]]) -> None:
    """What is written is more than its pipe holds, so that writing blocks."""
    deaf = meteor.Meteor([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1)
    with pytest.raises(NotAvailable, match="no answer within 1 s"):
        deaf.scores(["word " * 10**6], [["c"]])
    deaf.close()


def test_an_interrupt_ends_the_process(fake: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late answer must not become the answer to the next question."""
    command = fake()

    assert meteor.meteor_scores(["a b"], [["c"]]) == (2, [2])

    def interrupted(self: meteor.Meteor) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(meteor.Meteor, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            meteor.meteor_scores(["a b c"], [["c"]])
    assert meteor.meteor_scores(["a"], [["c"]]) == (1, [1])
    assert len(starts(command)) == 2
