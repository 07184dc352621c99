"""The figure of the localisation metrics: a panel per modality and metric, with a row per explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from explain.figures.saving import DEFAULTS
from explain.figures.styles import in_order, styles_of
from perturbation.localise.deletion import DELETION
from perturbation.localise.metrics import METRICS
from perturbation.localise.tables import CHANCE

HEADS = {
    "mass_accuracy": "share of the relevance\non the evidence",
    "rank_accuracy": "share of evidence among\nas many highest scores",
    "pointing_game": "highest score is\non the evidence",
}


@matplotlib.rc_context(DEFAULTS)
def draw_localisation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each metric of each explainer as a point with its 95 % interval, from 0 to 1; a dotted line is chance.

    Args:
        rows: One row per explainer, modality and metric, as in ``localisation.json``.
    """
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    names = [name for name in in_order(row["explainer"] for row in rows) if name not in (CHANCE, DELETION)]
    names += [DELETION] if any(row["explainer"] == DELETION for row in rows) else []
    size = (1.6 + 1.75 * len(METRICS), (0.75 + 0.17 * len(names)) * len(modalities) + 0.2)
    figure = Figure(figsize=size, dpi=300, layout="constrained", facecolor="white")
    panels = figure.subplots(len(modalities), len(METRICS), sharey="row", squeeze=False)
    for modality, line in zip(modalities, panels, strict=True):
        own = [row for row in rows if row["modality"] == modality]
        scored = {row["explainer"] for row in own}
        for metric, axes in zip(METRICS, line, strict=True):
            cells = {row["explainer"]: row for row in own if row["metric"] == metric}
            _draw_points(axes, cells, [name for name in names if name in scored])
            axes.set_title(HEADS[metric], fontsize=7)
        line[0].set_ylabel(f"{modality}, n = {own[0]['samples']}", fontsize=7)
    note = "bars: 95 % bootstrap intervals of the mean; dotted: chance; larger is better"
    figure.supxlabel(note, fontsize=6, color="0.35", x=0.01, ha="left")
    return figure


def _draw_points(axes: Axes, cells: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    styles = styles_of(names)
    for place, name in enumerate(names):
        row = cells[name]
        colour = styles[name].colour
        axes.plot(row["value"], place, marker=styles[name].marker, color=colour, markersize=3.5)
        if row["ci95"] is not None:
            axes.hlines(place, *row["ci95"], color=colour, linewidth=1)
    if CHANCE in cells:
        axes.axvline(cells[CHANCE]["value"], color="0.4", linestyle=":", linewidth=0.9)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=6.5, length=2)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
