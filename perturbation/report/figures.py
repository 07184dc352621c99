"""The figure of the curves: panels per modality and direction, with at most eight explainers in each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipmapper.escapes import figure_text
from explain.figures.saving import DEFAULTS
from explain.figures.styles import in_order, panels_of, styles_of
from perturbation.report.rows import Row

EXPECTED = {"positive": "highest first (lower is better)", "negative": "lowest first (higher is better)"}
SHORT = {"positive": "highest first ↓", "negative": "lowest first ↑"}
DPI = 300


@matplotlib.rc_context(DEFAULTS)
def curve_figure(rows: Sequence[Row], value: str) -> Figure:
    """Draw the mean curves with their 95 % bands, and the areas in the legends.

    More explainers than fit in a panel are divided among several rows of panels.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        value: The value to draw: ``accuracy``, ``probability`` or another value of the rows.
    """
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    lines = [(m, names) for m in dict.fromkeys(row["modality"] for row in rows) for names in _panels(rows, m)]
    size = (2.2 + 2.6 * len(directions), 0.6 + 2.3 * len(lines))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(len(lines), len(directions), sharex=True, sharey=True, squeeze=False)
    for (modality, names), axes in zip(lines, panels, strict=True):
        own = [row for row in rows if row["modality"] == modality and row["explainer"] in names]
        own.sort(key=lambda row: names.index(row["explainer"]))
        draw_curves({(modality, d): panel for d, panel in zip(directions, axes, strict=True)}, own, value, rows)
        for direction, panel in zip(directions, axes, strict=True):
            panel.set_title(f"{modality}: {EXPECTED[direction]}", fontsize=8)
            _tidy(panel)
        axes[0].set_ylabel(figure_text(value), fontsize=8)
        _add_legend(axes, own, value, directions)
    lowest = min(number for row in rows for number in row[value])
    panels[0][0].set_ylim(bottom=min(0.0, 1.05 * lowest))  # the panels share their axis; similarities can be negative
    for panel in panels[-1]:
        panel.set_xlabel("tokens removed, %", fontsize=8)
    figure.supxlabel(_note(rows, value), fontsize=6.5, color="0.35", x=0.01, ha="left")
    return figure


def draw_curves(
    panels: Mapping[tuple[str, str], Axes], rows: Sequence[Row], value: str, whole: Sequence[Row] | None = None
) -> None:
    """Draw the mean curves with their 95 % bands; an explainer has the same style in all panels.

    Args:
        panels: The panel of each modality and direction.
        rows: The rows to draw, from the entry ``rows`` of ``perturbation.json``.
        value: The value to draw.
        whole: All rows of the figure, which determine the styles of explainers that this package does not know; by
            default ``rows``.
    """
    whole = rows if whole is None else whole
    styles = styles_of((row["explainer"] for row in whole), controls_in(whole))
    opacity = min(0.15, 0.3 / len({row["explainer"] for row in rows}))  # the more bands overlap, the lighter each is
    order = in_order(row["explainer"] for row in rows)
    for row in sorted(rows, key=lambda row: order.index(row["explainer"])):
        style = styles[row["explainer"]]
        drawn = style.line(order.index(row["explainer"]))
        _draw(panels[row["modality"], row["direction"]], row, value, drawn, opacity)


def controls_in(rows: Sequence[Row]) -> Collection[str]:
    """Return the names of the explainers that are controls in any modality."""
    return {row["explainer"] for row in rows if row["control"]}


def _panels(rows: Sequence[Row], modality: str) -> list[list[str]]:
    return panels_of([row["explainer"] for row in rows if row["modality"] == modality], controls_in(rows))


def _draw(panel: Axes, row: Row, value: str, style: dict[str, Any], opacity: float) -> None:
    percent = [100 * step for step in row["steps"]]
    panel.plot(percent, row[value], label=figure_text(row["explainer"]), linewidth=1.2, markersize=3, **style)
    low, high = row[f"{value}_ci95"]
    if None not in low:
        panel.fill_between(percent, low, high, color=style["color"], alpha=opacity, linewidth=0)


def _add_legend(axes: Sequence[Axes], rows: Sequence[Row], value: str, directions: Sequence[str]) -> None:
    """Add a legend to the right of a row of panels: each explainer with its area in each panel."""
    key = "auc" if value == "accuracy" else f"{value}_auc"
    areas: dict[str, dict[str, float]] = {}
    for row in rows:
        areas.setdefault(row["explainer"], {})[row["direction"]] = row[key]
    handles = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawn = [name for name in areas if figure_text(name) in handles]
    labels = [
        f"{figure_text(name)}  {' | '.join(f'{areas[name][d]:.1f}' if d in areas[name] else '–' for d in directions)}"
        for name in drawn
    ]
    axes[-1].legend(
        [handles[figure_text(name)] for name in drawn],
        labels,
        title=f"area, %: {' | '.join(SHORT[d] for d in directions)}",
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        fontsize=6.5,
        title_fontsize=6.5,
        alignment="left",
        frameon=False,
    )


def _note(rows: Sequence[Row], value: str) -> str:
    measured = any(None not in row[f"{value}_ci95"][0] for row in rows)
    return f"n = {rows[0]['samples']} samples" + ("; bands: 95 % bootstrap intervals of the mean" if measured else "")


def _tidy(panel: Axes) -> None:
    panel.set_xlim(0, 100)
    panel.grid(alpha=0.25, linewidth=0.5)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=7)
