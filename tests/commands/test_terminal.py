"""The last line of a command begins at the start of a line, also in a terminal with an open progress bar."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_runs import PROJECT

pty = pytest.importorskip("pty")

# A command whose bar is open when it fails, or waits for a signal; "library" is a bar of tqdm.
COMMAND = """
import sys

from clipmapper.process import stopping

if __name__ == "__main__":
    with stopping.stoppable():
        from clipmapper import console
        from clipmapper.cli import command
        from clipmapper.errors import UserError

        def job(config, run):
            import time
            from tqdm import tqdm
            bar = tqdm(range(9)) if "library" in config.paths.root else None
            with console.progress(9, "drawing", "scenes") as advance:
                for _ in range(3):
                    advance(), bar and bar.update(), time.sleep(0.3)
                if "fails" in config.paths.root:
                    raise UserError("the ninth scene is missing; draw it")
                print("ready", flush=True)
                time.sleep(60)

        command("report")(job)()
"""


def on_terminal(folder: Path, root: str, number: signal.Signals | None) -> tuple[int, list[str]]:
    """Run the command in a terminal, with a signal when it waits; return its status and its lines without controls."""
    script = folder / "report.py"
    script.write_text(COMMAND)
    mine, its = pty.openpty()
    line = [sys.executable, str(script), f"paths.root={folder / root}"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "CLIPMAPPER_TRACE": "0", "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(line, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
    os.close(its)
    shown = b""
    with suppress(OSError):  # the terminal is closed
        while read := os.read(mine, 4096):
            shown += read
            if number is not None and b"ready" in shown:
                process.send_signal(number)
                number = None
    os.close(mine)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return process.wait(60), text.replace("\r\n", "\n").split("\n")


@pytest.mark.parametrize("root", ["fails", pytest.param("library-fails", marks=pytest.mark.slow)])
def test_an_error_begins_a_line(root: str, tmp_path: Path) -> None:
    status, lines = on_terminal(tmp_path, root, None)
    assert status == 1
    assert lines[-2:] == ["error: the ninth scene is missing; draw it", ""]
    assert any("drawing" in line for line in lines[:-2])  # a bar was shown


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_line_about_a_signal_begins_a_line(number: signal.Signals, tmp_path: Path) -> None:
    status, lines = on_terminal(tmp_path, "waits", number)
    assert status == (130 if number == signal.SIGINT else 143)
    assert lines[-2].startswith(f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}: report; ")
    assert lines[-1] == ""
