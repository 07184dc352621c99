"""Charts: positions of curves, intervals, ticks and labels in a drawing, and the style of every name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perturbation.page.numbers import number, percent, plain, unit, with_interval
from perturbation.page.view import Chart, Key, Panel, Point, Series, Tick
from perturbation.report.figures import EXPECTED
from perturbation.report.rows import Row

COLOURS, GREYS, MARKERS = 6, 3, 6  # numbers of colours and markers that the style sheet and the template have
DASHES, GREY_DASHES = ("", "7 3", "2 3"), ("2 2", "6 3", "6 3 2 3")
WIDTH, HEIGHT = 380.0, 250.0
FRAME = (44.0, 12.0, 370.0, 206.0)  # left, top, right and bottom edge of the axes
LETTER = 6.2  # width of a letter of a label
LONGEST = 24  # letters of a name next to a row


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to positions in the drawing."""

    low: float
    high: float
    first: float  #: position of ``low``
    last: float  #: position of ``high``

    def at(self, value: float) -> float:
        """Return the position of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 2)


def legend(names: Sequence[str], controls: Sequence[str] = ()) -> list[Key]:
    """Return the style of each name; controls are grey."""
    grey = {name: place for place, name in enumerate(name for name in names if name in controls)}
    coloured = {name: place for place, name in enumerate(name for name in names if name not in controls)}
    keys = []
    for name in names:
        if name in grey:
            place = grey[name]
            keys.append(Key(name, f"g{place % GREYS}", GREY_DASHES[place // GREYS % 3], place % MARKERS))
        else:
            place = coloured[name]
            keys.append(Key(name, f"c{place % COLOURS}", DASHES[place // COLOURS % 3], place % MARKERS))
    return keys


def curve_chart(rows: Sequence[Row], value: str, folded: bool) -> Chart:
    """Return the mean curves of one value over the removed share of tokens, with their 95 % bands.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        value: The value to draw.
        folded: Whether the reader must open the chart.
    """
    names = list(dict.fromkeys(row["explainer"] for row in rows))
    keys = legend(names, [row["explainer"] for row in rows if row["control"]])
    ends = (end for row in rows for end in (*row[value], *row[f"{value}_ci95"][1]) if end is not None)
    y = Axis(0, _top(100 * max(ends)), FRAME[3], FRAME[1])
    x = Axis(0, 100, FRAME[0], FRAME[2])
    panels = []
    for modality, direction in dict.fromkeys((row["modality"], row["direction"]) for row in rows):
        own = [row for row in rows if (row["modality"], row["direction"]) == (modality, direction)]
        panels.append(
            Panel(
                title=f"{modality}: {EXPECTED[direction]}",
                width=WIDTH,
                height=HEIGHT,
                frame=FRAME,
                x_label=f"{'patches' if modality == 'image' else 'words'} removed, %",
                y_label=f"{plain(value)}, {unit(value)}",
                x_ticks=[Tick(x.at(each), number(each, 0)) for each in range(0, 101, 25)],
                y_ticks=[Tick(y.at(each), number(each, 0)) for each in _steps(y.high)],
                series=[_curve(row, value, names.index(row["explainer"]), x, y) for row in own],
            )
        )
    said = [
        f"{row['explainer']}, {row['modality']}, {row['direction']}: {number(100 * row[value][0])} to "
        f"{number(100 * row[value][-1])}, area {number(row['auc' if value == 'accuracy' else f'{value}_auc'])}"
        for row in rows
    ]
    return Chart(
        title=f"Curves of the {plain(value)}",
        caption=f"Mean {plain(value)} while tokens are removed. Bands: 95 % intervals. Controls are grey.",
        description=f"Curves of the {plain(value)}, {unit(value)}. {'; '.join(said)}.",
        panels=panels,
        legend=keys,
        opacity=min(0.15, 0.6 / len(names)),  # the more bands overlap, the lighter each must be
        folded=folded,
    )


def _curve(row: Row, value: str, key: int, x: Axis, y: Axis) -> Series:
    low, high = row[f"{value}_ci95"]
    points = []
    for place, (step, mean) in enumerate(zip(row["steps"], row[value], strict=True)):
        ends = [None if end[place] is None else 100 * end[place] for end in (low, high)]
        text = f"{row['explainer']}, {percent(step)} % removed: {with_interval(100 * mean, ends)}"
        points.append(Point(x.at(100 * step), y.at(100 * mean), text))
    if None in low:
        return Series(key, points)
    places = [point.x for point in points]
    upper = [(at, y.at(100 * end)) for at, end in zip(places, high, strict=True)]
    lower = [(at, y.at(100 * end)) for at, end in zip(places, low, strict=True)]
    return Series(key, points, band=" ".join(f"{a},{b}" for a, b in (*upper, *reversed(lower))))


def layer_chart(rows: Sequence[Row]) -> Chart:
    """Return the rank correlation with the original explanation over the randomised layers.

    Args:
        rows: The entry ``rows`` of ``sanity.json``.
    """
    names, layers, modalities = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("explainer", "layer", "modality")
    )
    known = [row for row in rows if row["correlation"] is not None]
    lows = [row["ci95"][0] if row["ci95"] else row["correlation"] for row in known]
    bottom = min(0.0, math.floor(min(lows, default=0) * 5) / 5)
    left, top, right, low_edge = FRAME
    x, y = Axis(0, max(1, len(layers) - 1), left + 8, right - 8), Axis(bottom, 1, low_edge, top)
    ticks = [round(bottom + k * 0.2, 1) for k in range(round((1 - bottom) / 0.2) + 1)]
    panels = [
        Panel(
            title=modality,
            width=WIDTH,
            height=HEIGHT + 46,
            frame=FRAME,
            x_label="randomised down to",
            y_label="rank correlation",
            x_ticks=[Tick(x.at(place), layer) for place, layer in enumerate(layers)],
            y_ticks=[Tick(y.at(each), number(each)) for each in ticks],
            series=[
                _layers([row for row in known if (row["explainer"], row["modality"]) == (name, modality)], key, x, y)
                for key, name in enumerate(names)
            ],
            slanted=True,
            zero=y.at(0),
        )
        for modality in modalities
    ]
    last = [f"{row['explainer']}, {row['modality']}: {number(row['correlation'], 2)}" for row in _last(rows)]
    return Chart(
        title="Correlation with the trained model",
        caption="Rank correlation of the explanations with those of the trained model while its layers are made "
        "random from the top down. Bars: 95 % intervals over samples.",
        description=f"Curves of the rank correlation. With all layers random: {'; '.join(last)}.",
        panels=panels,
        legend=legend(names),
    )


def _layers(rows: Sequence[Row], key: int, x: Axis, y: Axis) -> Series:
    texts = [f"{r['explainer']}, {r['layer']}: {with_interval(r['correlation'], r['ci95'], 2)}" for r in rows]
    points = [Point(x.at(row["layers"]), y.at(row["correlation"]), text) for row, text in zip(rows, texts, strict=True)]
    bars = [(x.at(row["layers"]), *(y.at(end) for end in row["ci95"])) for row in rows if row["ci95"]]
    return Series(key, points, bars=[(at, low, at, high) for at, low, high in bars])


def _last(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in which all layers are random."""
    return [row for row in rows if row["layer"] == rows[-1]["layer"]]


def dot_chart(rows: Sequence[Row], chance: str, heads: Mapping[str, str]) -> Chart:
    """Return the localisation metrics of every explainer as points with intervals, next to chance.

    Args:
        rows: The rows of one kind of sample.
        chance: Name of the row that is drawn as a line.
        heads: Name of each metric, by its key in the rows.
    """
    names = [name for name in dict.fromkeys(row["explainer"] for row in rows) if name != chance]
    left = 16 + LETTER * max((min(LONGEST, len(name)) for name in names), default=0)
    frame = (left, 12.0, WIDTH - 14, 22.0 + 18 * len(names))
    x = Axis(0, 1, frame[0], frame[2])
    panels = []
    for modality, metric in dict.fromkeys((row["modality"], row["metric"]) for row in rows):
        own = {row["explainer"]: row for row in rows if (row["modality"], row["metric"]) == (modality, metric)}
        series = []
        for key, name in enumerate(names):
            if (row := own.get(name)) is None:
                continue
            at, high = x.at(row["value"]), 24.0 + 18 * key
            text = f"{name}: {with_interval(row['value'], row['ci95'], 3)}"
            ends = [x.at(end) for end in row["ci95"] or ()]
            series.append(Series(key, [Point(at, high, text)], bars=[(ends[0], high, ends[1], high)] if ends else ()))
        panels.append(
            Panel(
                title=f"{modality}: {heads[metric]}",
                width=WIDTH,
                height=frame[3] + 22,
                frame=frame,
                x_label="",
                y_label="",
                x_ticks=[Tick(x.at(k / 4), number(k / 4, 2)) for k in range(5)],
                y_ticks=[Tick(24.0 + 18 * key, _short(name)) for key, name in enumerate(names)],
                series=series,
                chance=x.at(own[chance]["value"]) if chance in own else None,
            )
        )
    values = [
        f"{row['explainer']}, {row['modality']}, {heads[row['metric']]}: {number(row['value'], 3)}" for row in rows
    ]
    return Chart(
        title="Agreement with the evidence",
        caption="Agreement of explanations and evidence, from 0 to 1; larger is better. Bars: 95 % intervals. The "
        "dotted line is chance.",
        description=f"Points with intervals. {'; '.join(values)}.",
        panels=panels,
        legend=legend(names),
        named=False,
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _top(highest: float) -> float:
    """Return the upper end of an axis: 100, or the next multiple of 50 above the highest value."""
    return max(100.0, 50 * math.ceil(round(highest, 6) / 50))  # rounding errors do not count


def _steps(high: float) -> range:
    return range(0, round(high) + 1, 25 if high <= 150 else 50)
