"""Memory that was freed and is returned to the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from clipmapper.process.freed import return_freed


@pytest.mark.skipif(sys.platform != "linux", reason="other systems return memory by themselves")
def test_freed_memory_is_returned() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    torch.ones(30 << 20, dtype=torch.uint8)  # the C library keeps what is smaller than the largest that was freed
    blocks = [torch.ones(1 << 20, dtype=torch.uint8) for _ in range(200)]
    kept = blocks[9::10]  # what is above the others is not free, so that they are not returned when they are freed
    blocks.clear()
    before = resident()
    return_freed()
    assert before - resident() > 100 << 20
    assert all(block.all() for block in kept)
