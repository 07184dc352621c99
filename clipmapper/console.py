"""Progress bars on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

shown = True  #: Whether this process shows progress bars.


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr while the body runs, if bars are switched on and stderr is a terminal.

    Lines that are printed during this time appear above the bar.

    Args:
        total: Number of units.
        what: Name of the activity.
        unit: Name of the unit, in the plural.

    Yields:
        A function ``advance(count=1)`` that advances the bar.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda count=1: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    bar = Progress(
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a redirected stdout would be written to stderr
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count=1: bar.advance(task, count)
