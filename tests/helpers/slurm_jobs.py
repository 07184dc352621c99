"""Jobs of a scheduler that behaves like Slurm (the folder ``slurm``), on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tiny_runs import PROJECT

STUBS = PROJECT / "tests" / "helpers" / "slurm"


def scripts_of_the_page() -> list[str]:
    """Return the scripts of docs/how-to/cluster.md: of a training, and of an array of shards."""
    page = (PROJECT / "docs" / "how-to" / "cluster.md").read_text("utf-8")
    return [block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "#SBATCH" in block]


def submit(script: str, arguments: Sequence[str], folder: Path, run: Path, *options: str, **variables: str) -> None:
    """Submit a script as a job, which runs in the background in ``folder``; the first job has the number 1000.

    Args:
        script: The script.
        arguments: Its arguments.
        folder: Folder of the script, of the logs ``*.out``, and of the notes of the jobs.
        run: The run folder, which the scripts of the page read as ``RUN``.
        options: Options of sbatch.
        variables: Further variables of the environment.
    """
    path = folder / f"script-{len(list(folder.glob('script-*')))}.sh"
    path.write_text(script)
    stubs = {"STUB_SLURM": str(folder), "PATH": f"{STUBS}:{os.environ['PATH']}", "CLIPMAPPER_TRACE": "0"}
    environment = {**os.environ, "RUN": str(run), **stubs, **variables}
    line = ["sbatch", *options, str(path), *arguments]
    subprocess.run(line, env=environment, cwd=folder, check=True, capture_output=True)


def logs_of(folder: Path) -> str:
    """Return what the jobs have printed."""
    return "".join(each.read_text() for each in sorted(folder.glob("*.out")))


def wait_for(path: Path) -> None:
    """Wait until a file exists."""
    until = time.monotonic() + 500
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.05)
