"""Progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

shown = True  #: whether the commands of this process show bars


@contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr while the body runs, if bars are on and stderr is a terminal.

    What is printed meanwhile comes above the bar.

    Args:
        total: How many there are.
        what: What is being done.
        unit: What is counted, in the plural.

    Yields:
        A function that moves the bar on, by one or by so many.
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
        redirect_stdout=sys.stdout.isatty(),  # else it would go where stderr goes
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count=1: bar.advance(task, count)
