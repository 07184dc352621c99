"""What the template draws: sections with sentences, tables, charts and explained samples, all of plain values.

Nothing here is HTML. Texts may come from data and configs, so only the template, which escapes them, makes HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a number, and small behind it its interval and its p-value."""

    text: str
    interval: str = ""
    p: str = ""
    marked: bool = False  #: whether the number is marked with °
    words: bool = False  #: whether it holds a text that may break over lines, not a number


@dataclass(frozen=True)
class Table:
    """A table with one row per name."""

    title: str
    recipe: Sequence[str]  #: how the numbers are made and read, one sentence or more each
    heads: Sequence[str]  #: headings of the columns, without that of the names
    rows: Sequence[tuple[str, Sequence[Cell]]]  #: the name of each row, and its cells
    groups: Sequence[tuple[str, int]] = ()  #: headings over several columns, and the number of these columns
    names: str = "explainer"  #: heading of the names
    muted: frozenset[str] = frozenset()  #: the names whose rows are controls
    folded: bool = False  #: whether only the caption is visible until the reader opens the table
    kind: str = "table"


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position in the drawing, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A point of a curve in the drawing, with the text that describes it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Series:
    """A curve or a column of points in the drawing."""

    key: int  #: place of its name in the legend
    points: Sequence[Point]
    band: str = ""  #: corners of the area between the ends of the intervals, as SVG points
    bars: Sequence[tuple[float, float, float, float]] = ()  #: intervals as lines from (x, y) to (x, y)


@dataclass(frozen=True)
class Panel:
    """One drawing of a chart."""

    title: str
    width: float
    height: float
    frame: tuple[float, float, float, float]  #: left, top, right and bottom edge of the axes
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    series: Sequence[Series]
    slanted: bool = False  #: whether the labels of the x ticks are slanted
    chance: float | None = None  #: position of a vertical line at chance
    zero: float | None = None  #: position of a horizontal line at 0


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    name: str
    colour: str  #: on a white page
    on_dark: str  #: its colour on a dark page
    dash: str  #: SVG dash pattern; empty for a solid line
    marker: int  #: number of its marker


@dataclass(frozen=True)
class Chart:
    """A figure of one or several panels with a common legend."""

    title: str
    caption: str
    description: str  #: what a reader who cannot see the figure gets
    panels: Sequence[Panel]
    legend: Sequence[Key]
    named: bool = True  #: whether the legend is drawn
    opacity: float = 0.15  #: of the bands
    folded: bool = False
    kind: str = "chart"


@dataclass(frozen=True)
class Word:
    """A word of an explained sample."""

    text: str
    colour: str = ""  #: background as a CSS colour; empty for none
    ink: str = ""  #: colour of the letters on it
    score: str = ""  #: its score as text
    heat: str = ""  #: its map of the patches, as a data URI; empty if there is none
    label: str = ""  #: what its map shows
    evidence: bool = False  #: whether the answer is known to depend on the word
    outline: str = ""  #: an SVG path around the objects that the word names, which is drawn on its map


@dataclass(frozen=True)
class Tab:
    """One explainer's view of a sample."""

    name: str
    heat: str  #: map of the patches as a data URI; empty if there is none
    label: str  #: what the map shows
    about: str  #: what the map shows, and where it is strongest
    words: Sequence[Word]


@dataclass(frozen=True)
class Explained:
    """One explained sample."""

    title: str  #: the question, or the caption
    answer: str  #: the predicted answer with its probability; empty for captions
    note: str
    warnings: Sequence[str]  #: reasons to doubt the answer
    photo: str  #: data URI; empty if there is no photo
    size: tuple[int, int]  #: width and height of the photo in pixels
    box: tuple[float, float, float, float]  #: left edge, top edge, width and height of the encoder's view, in pixels
    smooth: bool  #: whether maps are interpolated between the patches
    tabs: Sequence[Tab]
    outline: str = ""  #: an SVG path around the known evidence; empty if it is not known


@dataclass(frozen=True)
class Gallery:
    """Explained samples."""

    caption: str
    samples: Sequence[Explained]
    kind: str = "gallery"


Part = Table | Chart | Gallery


@dataclass(frozen=True)
class Section:
    """The results of one run."""

    asked: str  #: the question that the run answers
    facts: Sequence[tuple[str, str]] = ()  #: names and values, such as the model
    findings: Sequence[str] = ()
    parts: Sequence[Part] = ()
