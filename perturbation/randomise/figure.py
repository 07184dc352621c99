"""The figure of the model randomisation test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from clipmapper.escapes import figure_text
from explain.figures.saving import DEFAULTS
from explain.figures.styles import in_order, panels_of, styles_of


@matplotlib.rc_context(DEFAULTS)
def draw_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw rank correlation over the randomised layers: a panel per modality, a curve per explainer, bars as intervals.

    More explainers than fit in a panel are divided among several rows of panels. ``rows`` is the result of
    ``perturbation.randomise.run.curve_rows``.
    """
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    explainers = in_order(row["explainer"] for row in rows)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    styles, groups = styles_of(explainers), panels_of(explainers)
    size = (1.4 + 2.8 * len(modalities), 0.9 + 2.2 * len(groups))
    figure = Figure(figsize=size, dpi=300, layout="constrained", facecolor="white")
    panels = figure.subplots(len(groups), len(modalities), sharex=True, sharey=True, squeeze=False)
    for names, line in zip(groups, panels, strict=True):
        for axes, modality in zip(line, modalities, strict=True):
            axes.axhline(0, color="0.7", linewidth=0.6)
            for name in names:
                curve = [row for row in rows if row["modality"] == modality and row["explainer"] == name]
                _draw_curve(axes, curve, name, styles[name].line(names.index(name)))
            axes.set_title(modality, fontsize=8)
            axes.set_xticks(
                range(len(layers)),
                [figure_text(each) for each in layers],
                rotation=60,
                ha="right",
                rotation_mode="anchor",
            )
            axes.tick_params(labelsize=6)
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("rank correlation with the original", fontsize=7)
        line[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, fontsize=6, frameon=False)
    for axes in panels[-1]:
        axes.set_xlabel("randomised down to", fontsize=7)
    note = f"n = {max(row['samples'] for row in rows)} samples; bars: 95 % bootstrap intervals of the mean"
    figure.supxlabel(note, fontsize=6, color="0.35", x=0.01, ha="left")
    return figure


def _draw_curve(axes: Any, curve: Sequence[Mapping[str, Any]], name: str, style: Mapping[str, Any]) -> None:
    known = [row for row in curve if row["correlation"] is not None]
    x, y = [row["layers"] for row in known], [row["correlation"] for row in known]
    axes.plot(x, y, label=figure_text(name), linewidth=0.9, markersize=2.5, **style)
    measured = [row for row in known if row["ci95"] is not None]
    x, low, high = ([row["layers"] for row in measured], *([row["ci95"][k] for row in measured] for k in (0, 1)))
    axes.vlines(x, low, high, color=style["color"], linewidth=0.5)
