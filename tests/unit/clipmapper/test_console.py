"""Progress and tables with and without a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from clipmapper import console
from clipmapper.console import Stage, clock, print_table, progress

BAR = """
import sys
from clipmapper import console
console.shown = {shown}
with console.progress(3, "counting", "sheep") as advance:
    advance()
    print("a note", file=sys.stderr)
    advance(2)
print("done")
"""
NESTED = """
import time
from clipmapper.console import progress
with progress(None, "outer"):
    time.sleep(0.5)
    with progress(8, "inner", "things") as advance:
        advance(2, "loss 0.5")
        time.sleep(0.5)
"""
TABLE = """
from clipmapper.console import print_table
rows = [["first", "1.5 [1.0, 2.0]", "yes"], ["second one", "[bold]", "–"]]
print_table("numbers of things, in percent", ["name", "value ↑", "good"], rows, "a note")
"""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def on_a_terminal(code: str, both: bool = False) -> tuple[str, str]:
    """Return what a program writes to stdout, which is a pipe, and to stderr, which is a terminal of 90 columns.

    With ``both``, stdout is the terminal too.
    """
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=there if both else subprocess.PIPE,
        stderr=there,
        check=True,
        env={**environment, "TERM": "xterm"},
        cwd=Path(console.__file__).parents[1],
    )
    os.close(there)
    seen = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # Linux raises this error when the other end of the terminal is closed
            break
        if not part:
            break
        seen += part
    os.close(here)
    return (done.stdout or b"").decode(), seen.decode()


def without_codes(text: str) -> list[str]:
    """Return the lines of a terminal's output, also those that were overwritten, without control codes."""
    return [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))]


def test_the_terminal_shows_the_bar_and_lines_printed_during_it() -> None:
    out, err = on_a_terminal(BAR.format(shown=True))
    assert out == "done\n"
    lines = without_codes(err)
    assert "a note" in lines
    assert any(re.fullmatch(r"counting ━+ 3/3 sheep, 0:00:0\d, \d+\.\d/s, 0:00:00 left", line) for line in lines)


def test_the_innermost_stage_is_shown_with_its_rate_and_note() -> None:
    lines = without_codes(on_a_terminal(NESTED)[1])
    outer = [k for k, line in enumerate(lines) if re.fullmatch(r"outer ━+ 0:00:0\d", line)]
    inner = [
        k
        for k, line in enumerate(lines)
        if re.match(r"inner .* 2/8 things, .*, \d+\.\d/s, 0:00:0\d left, loss 0.5", line)
    ]
    assert outer
    assert inner
    assert min(outer) < min(inner)


def test_no_bar_is_shown_when_bars_are_switched_off() -> None:
    assert on_a_terminal(BAR.format(shown=False)) == ("done\n", "a note\r\n")


def test_without_a_terminal_a_short_stage_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    exec(BAR.format(shown=True))
    assert capsys.readouterr() == ("done\n", "a note\n")


def test_without_a_terminal_a_long_stage_prints_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "EVERY", 0.05)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(None, "reading"):
        time.sleep(0.2)
        with progress(4, "counting", "sheep") as advance:
            advance()
            time.sleep(0.2)
    out, err = capsys.readouterr()
    assert out == ""
    assert CONTROL.search(err.replace("\n", "")) is None
    lines = err.splitlines()
    assert lines[0] == "reading: 0:00:00"
    assert re.fullmatch(r"counting: 1/4 sheep, 0:00:00, \d\.\d+/s, 0:00:0\d left", lines[-1])
    assert 4 <= len(lines) <= 10
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # the reporter has ended


def test_half_a_minute_passes_between_two_lines() -> None:
    assert console.EVERY == 30


def test_an_error_ends_all_stages() -> None:
    inner = progress(1, "inner", "things")  # a generator that is not closed

    def fail() -> None:
        with progress(None, "outer"):
            inner.__enter__()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert console._stages == []


def test_the_numbers_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stage = Stage("training", 600, "steps", start=now)
    assert stage.numbers() == "0/600 steps, 0:00:00"
    now = 1050.0
    stage.advance(100)
    assert stage.numbers() == "100/600 steps, 0:00:50, 2.0/s, 0:04:10 left"
    now = 1200.0
    stage.advance(note="loss 0.3")
    assert stage.numbers() == "101/600 steps, 0:03:20, 0.51/s, 0:16:28 left, loss 0.3"
    assert clock(3725) == "1:02:05"


def test_a_table_in_a_file_is_aligned_and_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    exec(TABLE)
    out = capsys.readouterr().out
    assert CONTROL.search(out.replace("\n", "")) is None
    assert out.splitlines() == [
        "",
        "numbers of things, in percent",
        "name                value ↑   good",
        "──────────────────────────────────",
        "first        1.5 [1.0, 2.0]    yes",
        "second one           [bold]      –",
        "a note",
    ]


def test_a_table_on_a_terminal_is_no_wider_than_it() -> None:
    wide = TABLE.replace('"first"', repr("long " * 30)).replace('"a note"', repr("text " * 50))
    lines = without_codes(on_a_terminal(wide, both=True)[1])
    assert 80 < max(map(len, lines)) <= 90
    assert any(line.endswith("1.5 [1.0, 2.0]    yes") for line in lines)


def test_a_wide_table_in_a_file_has_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title " * 30, ["a", "b"], [["word " * 20, "x" * 300]], "note " * 30)
    assert 90 < max(map(len, capsys.readouterr().out.splitlines())) <= 100
