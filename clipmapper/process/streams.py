"""Output without a reader: a closed stdout or stderr, or a pipe whose reader has ended, costs no result."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class _Lasting(io.FileIO):
    """A file that drops what cannot be written."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def keep_writing() -> None:
    """Drop the output of this process, instead of failing, when stdout or stderr is closed or its disk is full."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # otherwise a file that is opened later gets this number, and output is written to it
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _lasting(sys.stdout, sys.__stdout__, 1), _lasting(sys.stderr, sys.__stderr__, 2)


def _lasting(stream: TextIO | None, own: TextIO | None, number: int) -> TextIO:
    if stream is not own and stream is not None:  # someone else's, such as a notebook's
        return stream
    buffer = io.BufferedWriter(_Lasting(number, "wb", closefd=False))
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", line_buffering=True)
    stream.flush()
    lasting = io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering)
    lasting.reconfigure(write_through=stream.write_through)
    return lasting
