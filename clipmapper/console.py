"""What commands show on the terminal: the progress of their work, and tables."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from clipmapper.process import stopping
from clipmapper.process.repeated import repeated
from clipmapper.text import printable

WIDTH = 100  #: most columns of a line
EVERY = 30.0  #: seconds between two lines about the progress, where stderr is not a terminal

shown = True  #: Whether this process shows its progress.


class Advance(Protocol):
    """A function that counts finished units; ``note`` replaces the text that is shown behind the numbers."""

    def __call__(self, count: int = 1, note: str | None = None) -> None:
        """Count finished units."""


@dataclass(eq=False)
class Stage:
    """A part of a command that takes time."""

    what: str  #: name of the activity
    total: int | None  #: number of units, None if the progress can't be measured
    unit: str  #: name of the unit, in the plural
    done: int = 0  #: number of finished units
    note: str = ""
    start: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count finished units."""
        stopping.check()
        self.done += count
        self.note = self.note if note is None else note

    def numbers(self) -> str:
        """Return the time since the start and, with a total, the finished units, their rate and the time left."""
        seconds = time.monotonic() - self.start
        parts = [clock(seconds)]
        if self.total is not None:
            parts = [f"{self.done}/{self.total} {self.unit}", *parts]
            if self.done:
                rate = self.done / max(seconds, 1e-9)
                parts += [f"{rate:.{1 if rate >= 1 else 2}f}/s", f"{clock((self.total - self.done) / rate)} left"]
        return ", ".join([*parts, *filter(None, [self.note])])


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds, such as 0:01:30."""
    return str(timedelta(seconds=round(seconds)))


_showed_bar = False  # since the last line of print_last
_stages: list[Stage] = []  # that are running, the outermost first; only the innermost is shown


@contextmanager
def progress(total: int | None, what: str, unit: str = "") -> Iterator[Advance]:
    """Show the progress of a stage on stderr while the body runs, if :data:`shown`.

    On a terminal this is a bar, above which printed lines appear. Elsewhere it is a line every half minute. If stages
    are nested, the innermost is shown.

    Args:
        total: Number of units; None if the progress can't be measured, so that only the time is shown.
        what: Name of the activity; empty shows nothing, while the command waits for its user.
        unit: Name of the unit, in the plural.

    Yields:
        A function ``advance(count=1, note=None)`` that counts finished units.
    """
    stage = Stage(what, total, unit)
    if not shown:
        yield stage.advance
        return
    _stages.append(stage)
    try:
        with nullcontext() if len(_stages) > 1 else _bar() if sys.stderr.isatty() else repeated(_print_stage, EVERY):
            yield stage.advance
    finally:
        if stage in _stages:
            del _stages[_stages.index(stage) :]  # with stages inside it that an error has left open


def _bar() -> AbstractContextManager[object]:
    global _showed_bar
    _showed_bar = True
    return Live(
        get_renderable=_render,
        console=Console(stderr=True, markup=False, emoji=False),
        refresh_per_second=5,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a redirected stdout would be written to stderr
    )


def print_last(line: str) -> None:
    """Print the line that ends a command on stderr, at the start of a line, with no open bar before it."""
    global _showed_bar
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    for bar in list(getattr(tqdm, "_instances", ())):  # bars of libraries, which an error has left open
        bar.close()
    begin = "\n" if sys.stderr.isatty() and (_showed_bar or stopping.is_asked()) else ""
    _showed_bar = False
    print(f"{begin}{line}", file=sys.stderr, flush=True)


def _render() -> RenderableType:
    stage = _stages[-1]
    bar = ProgressBar(stage.total, stage.done, width=16, pulse=stage.total is None)
    grid = Table.grid(padding=(0, 1))
    if stage.what:
        grid.add_row(stage.what, bar, stage.numbers())
    return grid


def _print_stage() -> None:
    if _stages[-1].what:
        print(f"{_stages[-1].what}: {_stages[-1].numbers()}", file=sys.stderr, flush=True)


def print_table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], note: str = "", text: Collection[int] = (0,)
) -> None:
    """Print a table on stdout, aligned and at most ``WIDTH`` columns wide; without control characters in a file.

    Args:
        title: What the numbers are, with their unit.
        heads: The headings of the columns; an arrow shows whether more (↑) or less (↓) is better.
        rows: The cells of each row.
        note: Text below the table.
        text: Numbers of the columns that contain text and are aligned left; the others are aligned right.
    """
    terminal = sys.stdout.isatty()
    width = min(WIDTH, shutil.get_terminal_size().columns) if terminal else WIDTH
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(printable(head), justify="left" if number in text else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(width=width, force_terminal=terminal, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    print(
        "\n".join(["", *textwrap.wrap(printable(title), width), *lines, *textwrap.wrap(printable(note), width)]),
        flush=True,
    )
