"""Charts: positions of curves, intervals, ticks and labels in a drawing, and the style of every name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from explain.figures.styles import in_order, panels_of, styles_of
from perturbation.page.numbers import number, percent, plain, unit, with_interval
from perturbation.page.view import Chart, Key, Panel, Point, Series, Tick
from perturbation.report.figures import EXPECTED, controls_in
from perturbation.report.rows import Row

MARKERS = "osD^vP"  # in the order of the shapes that the template has
LINE = 1.7  # width of a curve, as in the style sheet
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


def legend(names: Sequence[str], controls: Collection[str] = ()) -> list[Key]:
    """Return the style of each name, which is the same in all figures; controls are grey."""
    return [
        Key(
            name,
            style.colour,
            style.on_dark,
            " ".join(f"{LINE * length:.3g}" for length in style.dash),
            MARKERS.index(style.marker),
        )
        for name, style in styles_of(names, controls).items()
    ]


def curve_chart(rows: Sequence[Row], value: str, folded: bool) -> Chart:
    """Return the mean curves of one value over the removed share of tokens, with their 95 % bands.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        value: The value to draw.
        folded: Whether the reader must open the chart.
    """
    names = in_order(row["explainer"] for row in rows)
    keys = legend(names, controls_in(rows))
    ends = (end for row in rows for end in (*row[value], *row[f"{value}_ci95"][1]) if end is not None)
    y = Axis(0, _top(100 * max(ends)), FRAME[3], FRAME[1])
    x = Axis(0, 100, FRAME[0], FRAME[2])
    panels = []
    for modality, direction, shown in _curve_panels(rows):
        own = [row for row in rows if (row["modality"], row["direction"]) == (modality, direction)]
        own = [row for row in own if row["explainer"] in shown]
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
        caption=f"Mean {plain(value)} of {rows[0]['samples']} samples while tokens are removed. Bands: 95 % bootstrap "
        "intervals. Controls are grey.",
        description=f"Curves of the {plain(value)}, {unit(value)}. {'; '.join(said)}.",
        panels=panels,
        legend=keys,
        opacity=min(0.15, 0.6 / len(names)),  # the more bands overlap, the lighter each must be
        folded=folded,
    )


def _curve_panels(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Return modality, direction and explainers of each panel; the directions of the same explainers are neighbours."""
    modalities, directions = (list(dict.fromkeys(row[key] for row in rows)) for key in ("modality", "direction"))
    scored = {m: [row["explainer"] for row in rows if row["modality"] == m] for m in modalities}
    return [(m, d, shown) for m in modalities for shown in panels_of(scored[m], controls_in(rows)) for d in directions]


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
    names = in_order(row["explainer"] for row in rows)
    layers, modalities = (list(dict.fromkeys(row[key] for row in rows)) for key in ("layer", "modality"))
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
            series=[_layers(_of(known, name, modality), names.index(name), x, y) for name in shown],
            slanted=True,
            zero=y.at(0),
        )
        for modality in modalities
        for shown in panels_of(names)
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


def _of(rows: Sequence[Row], explainer: str, modality: str) -> list[Row]:
    return [row for row in rows if (row["explainer"], row["modality"]) == (explainer, modality)]


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
    names = [name for name in in_order(row["explainer"] for row in rows) if name != chance]
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
