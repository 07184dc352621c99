"""Progress bars with and without a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from clipmapper import console

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


def on_a_terminal(code: str) -> tuple[str, str]:
    """Return what a program writes to stdout, which is a pipe, and to stderr, which is a terminal."""
    here, there = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=there,
        check=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
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
    return done.stdout.decode(), seen.decode()


def test_the_terminal_shows_the_bar_and_lines_printed_during_it() -> None:
    out, err = on_a_terminal(BAR.format(shown=True))
    assert out == "done\n"
    assert "counting" in err
    assert "3/3" in err
    assert "sheep" in err
    assert any(line.strip() == "a note" for line in err.replace("\x1b[2K", "").replace("\r", "\n").splitlines())


def test_no_bar_is_shown_when_bars_are_switched_off() -> None:
    assert on_a_terminal(BAR.format(shown=False)) == ("done\n", "a note\r\n")


def test_without_a_terminal_only_the_printed_lines_appear(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    exec(BAR.format(shown=True))
    assert capsys.readouterr() == ("done\n", "a note\n")
