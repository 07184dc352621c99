"""Functions that run in several connected processes, forked from the test's."""

from __future__ import annotations

import multiprocessing as mp
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CONTEXT = mp.get_context("fork")


def in_ranks(folder: Path, function: Callable[[int], Any], world: int = 2) -> list[Any]:
    """Call a function of the rank in connected processes, and return what it returns in each."""
    pipes = [CONTEXT.Pipe(duplex=False) for _ in range(world)]
    meeting = folder / f"meeting-{os.urandom(4).hex()}"
    started = []
    for rank, (_, sends) in enumerate(pipes):
        process = CONTEXT.Process(target=_run, args=(meeting, rank, world, function, sends))
        process.start()
        sends.close()
        started.append(process)
    found = [receives.recv() for receives, _ in pipes]
    for process in started:
        process.join(60)
    problems = [text for text, _ in found if text]
    assert not problems, problems[0]
    return [value for _, value in found]


def _run(meeting: Path, rank: int, world: int, function: Callable[[int], Any], sends: Any) -> None:
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
        sends.send(("", function(rank)))
        torch.distributed.destroy_process_group()
    except BaseException:
        sends.send((traceback.format_exc(), None))
    os._exit(0)
