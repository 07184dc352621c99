"""The figure of the model randomisation test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

MARKERS = "osD^v<>"


def draw_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw rank correlation over the randomised layers: a panel per modality, a curve per explainer, bars as intervals.

    ``rows`` is the result of ``perturbation.randomise.run.curve_rows``.
    """
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    explainers = list(dict.fromkeys(row["explainer"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    figure = Figure(figsize=(7.0, 3.4), dpi=300, layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for axes, modality in zip(panels, modalities, strict=True):
        axes.axhline(0, color="0.7", linewidth=0.6)
        for number, explainer in enumerate(explainers):
            curve = [row for row in rows if row["modality"] == modality and row["explainer"] == explainer]
            style = {"color": colours[2 * number % 20 + number // 10 % 2], "marker": MARKERS[number % len(MARKERS)]}
            _draw_curve(axes, curve, explainer, style)
        axes.set_title(modality, fontsize=8)
        axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_xlabel("randomised down to", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("rank correlation with the original", fontsize=7)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=6, frameon=False)
    return figure


def _draw_curve(axes: Any, curve: Sequence[Mapping[str, Any]], name: str, style: Mapping[str, Any]) -> None:
    known = [row for row in curve if row["correlation"] is not None]
    x, y = [row["layers"] for row in known], [row["correlation"] for row in known]
    axes.plot(x, y, label=name, linewidth=0.9, markersize=2.5, **style)
    measured = [row for row in known if row["ci95"] is not None]
    x, low, high = ([row["layers"] for row in measured], *([row["ci95"][k] for row in measured] for k in (0, 1)))
    axes.vlines(x, low, high, color=style["color"], linewidth=0.5)
