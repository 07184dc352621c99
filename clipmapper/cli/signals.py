"""What a signal, or the end of another process of a distributed run, does to a running command: one line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from clipmapper import console
from clipmapper.errors import UserError
from clipmapper.process import launched, stopping, sweep, together, workers
from clipmapper.process.stop_line import StartedRun


@contextmanager
def leaving_after_signal() -> Iterator[None]:
    """End the process in one line when a signal stops what the body does."""
    try:
        yield
        stopping.check()
    except BaseException:
        if not stopping.is_asked():  # libraries may have replaced the exception that the signal raised
            raise
        if os.environ.get("CLIPMAPPER_TRACE") == "1":
            traceback.print_exc()
        elif (line := stopping.last_line()) and launched.is_first():
            console.print_last(line)
        sys.exit(stopping.asked().status)


@contextmanager
def stops_in_one_line(started: StartedRun) -> Iterator[None]:
    """End the process in one line when a signal stops the run, or another process of a distributed run has ended.

    Raises:
        UserError: Another process of a distributed run ended badly.
    """
    try:
        with leaving_after_signal():
            yield
    except Exception as error:
        if not isinstance(error, UserError) and (line := workers.death_of_another(error)):
            raise UserError(f"{line}{started.going_on()}") from error
        raise
    finally:
        workers.end_watched()
        if sweep.is_job():
            together.part()
