"""Commands of two processes, by rank, and their violent end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from processes import descendants, end_soon

ENDS = 60.0  #: seconds in which the processes that were not killed must end


def line(by: str, script: Path) -> list[str]:
    """Return the beginning of the line that runs a script in two processes, by ``ddp`` or ``torchrun``."""
    if by == "ddp":
        return [sys.executable, str(script), "trainer=ddp", "trainer.devices=2"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]


def ranks_of(process: int) -> dict[str, int]:
    """Return the processes of a run by their ranks."""
    found = {}
    for number in descendants(process):
        with suppress(OSError):
            environment = Path(f"/proc/{number}/environ").read_bytes()
            if given := re.search(rb"(?:^|\0)LOCAL_RANK=(\d+)", environment):
                found.setdefault(f"rank {given[1].decode()}", number)  # its own processes come after it
    return {"rank 0": process, **found}


def kill_some(process: subprocess.Popen[str], random: Random) -> str:
    """Kill one process of a run, or all, wait for the end of the others, and return which were killed."""
    ranks = ranks_of(process.pid)
    chosen = random.choice([*ranks, "all"])
    every = {process.pid, *descendants(process.pid)}
    for number in every if chosen == "all" else {ranks[chosen]}:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait(ENDS)
    assert end_soon(every, ENDS), f"processes go on after the end of {chosen}"
    return chosen


def steps_of_last_job(run: Path) -> int:
    """Return the number of steps that the last job of a training has made, by its profile."""
    profile = run / "fit-profile-0.txt"
    *_, last = (line for line in profile.read_text().splitlines() if "run_training_batch" in line)
    return int(last.split("|")[3])
