"""Memory that was freed, but that libraries keep for this process."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import pyarrow as pa


def return_freed() -> None:
    """Give freed memory back to the system; Arrow and the C library of Linux would keep it for this process."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
