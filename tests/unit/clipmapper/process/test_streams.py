"""Output without a reader costs no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from clipmapper.process.streams import keep_writing
keep_writing()
for number in range(2000):
    print("line", number, flush=True)
file = open({!r}, "w")
file.write("done")
file.close()
assert sys.stdout.isatty() in (True, False)
"""


@pytest.mark.parametrize("ending", ["| head -1 > /dev/null", ">&- 2>&-", "> /dev/full", "> /dev/null < /dev/null"])
def test_the_process_ends_well(tmp_path: Path, ending: str) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys" + CODE.format(str(tmp_path / "result")))
    line = f"set -o pipefail; {sys.executable} {script} {ending}"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "result").read_text() == "done"
