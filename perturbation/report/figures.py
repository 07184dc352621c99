"""The figure of the curves: one panel per modality and direction, with all explainers in each panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perturbation.report.rows import Row

# The palette of Okabe and Ito (2008), which people with colour blindness can distinguish; the controls are grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", ":")
MARKERS = "osD^vPX<>*hp"
GREYS = ("#222222", "#777777", "#AAAAAA")
GREY_DASHES = ((0, (1, 1)), (0, (4, 2)), (0, (4, 1, 1, 1)))
EXPECTED = {"positive": "highest first (lower is better)", "negative": "lowest first (higher is better)"}


def curve_figure(rows: Sequence[Row], value: str) -> Figure:
    """Draw the mean curves with their 95 % bands.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        value: The value to draw: ``accuracy``, ``probability`` or another value of the rows.
    """
    modalities, directions, explainers = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("modality", "direction", "explainer")
    )
    size = (1.8 + 3.4 * len(directions), 0.6 + 2.6 * len(modalities))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(modalities), len(directions), sharex=True, sharey=True, squeeze=False)
    draw_curves({(m, d): panels[i][j] for i, m in enumerate(modalities) for j, d in enumerate(directions)}, rows, value)
    for i, modality in enumerate(modalities):
        panels[i][0].set_ylabel(value)
        for j, direction in enumerate(directions):
            panels[i][j].set_title(f"{modality}: {EXPECTED[direction]}", fontsize=9)
            _tidy(panels[i][j], last=i == len(modalities) - 1)
    lowest = min(number for row in rows for number in row[value])
    panels[0][0].set_ylim(bottom=min(0.0, 1.05 * lowest))  # the panels share their axis; similarities can be negative
    shown = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawn = [name for name in explainers if name in shown]
    figure.legend([shown[name] for name in drawn], drawn, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def draw_curves(panels: Mapping[tuple[str, str], Axes], rows: Sequence[Row], value: str) -> None:
    """Draw the mean curves with their 95 % bands; an explainer has the same style in all panels.

    Args:
        panels: The panel of each modality and direction.
        rows: The entry ``rows`` of ``perturbation.json``.
        value: The value to draw.
    """
    explainers = list(dict.fromkeys(row["explainer"] for row in rows))
    controls = list(dict.fromkeys(row["explainer"] for row in rows if row["control"]))
    styles = {name: _control_style(place) for place, name in enumerate(controls)}
    styles |= {name: _style(place) for place, name in enumerate(name for name in explainers if name not in controls)}
    opacity = min(0.15, 0.3 / len(explainers))  # the more bands overlap in a panel, the lighter each must be
    for row in rows:
        _draw(panels[row["modality"], row["direction"]], row, value, styles[row["explainer"]], opacity)


def _draw(panel: Axes, row: Row, value: str, style: dict[str, Any], opacity: float) -> None:
    percent = [100 * step for step in row["steps"]]
    panel.plot(percent, row[value], label=row["explainer"], linewidth=1.3, markersize=3.5, **style)
    low, high = row[f"{value}_ci95"]
    if None not in low:
        panel.fill_between(percent, low, high, color=style["color"], alpha=opacity, linewidth=0)


def _control_style(place: int) -> dict[str, Any]:
    dash = GREY_DASHES[place // len(GREYS) % len(GREY_DASHES)]
    return {"color": GREYS[place % len(GREYS)], "linestyle": dash, "marker": None}


def _style(place: int) -> dict[str, Any]:
    colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
    return {"color": colour, "linestyle": dash, "marker": MARKERS[place % len(MARKERS)]}


def _tidy(panel: Axes, last: bool) -> None:
    panel.set_ylim(bottom=0)
    panel.set_xlim(0, 100)
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    if last:
        panel.set_xlabel("tokens removed, %")
