"""curves.png: the perturbation curves of the paper's four explainers and of random orders, on the first test scenes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from clipmapper.config.data import ShapesConfig
from explain.figures.layout import GREY
from perturbation.config import PerturbConfig
from perturbation.measures.base import SAMPLES
from perturbation.perturb.run import perturb
from perturbation.report.figures import draw_curves
from perturbation.report.rows import Row
from readme_pictures.subject import EXPLAINERS

VALUE = "accuracy"
PANELS = tuple((modality, direction) for modality in ("image", "text") for direction in ("positive", "negative"))
TOKENS = {"image": "patches", "text": "words"}
ORDERS = {
    "positive": ("most relevant first", "lower is better"),
    "negative": ("least relevant first", "higher is better"),
}
SIZE, DPI = (7.6, 2.4), 216
TEXT, SMALL = 7.0, 6.0  # font sizes
FIRST = 2  # number of scenes whose curves a test computes again


def measured(config: PerturbConfig) -> tuple[list[Row], Any]:
    """Run ``perturb``.

    Returns:
        The entry ``rows`` of ``perturbation.json``, and the curves of the first scenes (see :func:`scores`).
    """
    assert isinstance(config.data, ShapesConfig)
    with tempfile.TemporaryDirectory() as folder:
        rows: list[Row] = perturb(config, EXPLAINERS, Path(folder))["rows"]
        records = pq.read_table(Path(folder) / f"{SAMPLES}.parquet").to_pylist()
    ids = sorted({record["question_id"] for record in records})[: FIRST * config.data.questions_per_scene]
    curves: dict[str, list[Any]] = {}
    for record in records:
        if record["question_id"] in ids:
            name = "/".join(record[key] for key in ("explainer", "modality", "direction"))
            curves.setdefault(name, []).append(record["probability"])
    return rows, {name: np.mean(values, axis=0).tolist() for name, values in curves.items()}


def scores(rows: list[Row], first: Any) -> Any:
    """Return the curves of the picture, and the mean probabilities of the questions about the first scenes."""
    keys = ("explainer", "control", "modality", "direction", "samples", "steps", VALUE, f"{VALUE}_ci95")
    return {"rows": [{key: row[key] for key in keys} for row in rows], "first": first}


def first_scenes(config: PerturbConfig) -> PerturbConfig:
    """Return the config of a short run, on the first scenes alone."""
    assert isinstance(config.data, ShapesConfig)
    return replace(config, data=replace(config.data, test_scenes=FIRST))


def draw(rows: list[Row]) -> Figure:
    """Draw one panel for each modality and direction, all in one row."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    figure.subplots_adjust(left=0.055, right=0.98, bottom=0.17, top=0.71, wspace=0.14)
    panels = dict(zip(PANELS, figure.subplots(1, len(PANELS), sharex=True, sharey=True), strict=True))
    draw_curves(panels, rows, VALUE)
    for (modality, direction), panel in panels.items():
        what, (order, aim) = TOKENS[modality], ORDERS[direction]
        panel.set(xlim=(0, 100), ylim=(0, 1.02), xticks=(0, 25, 50, 75, 100))
        panel.set_title(f"{what}, {order}", loc="left", fontsize=TEXT, fontweight="bold", pad=14)
        panel.text(0, 1.035, aim, transform=panel.transAxes, fontsize=SMALL, color=GREY)
        panel.set_xlabel(f"{what} removed, %", fontsize=SMALL, color=GREY)
        for line in panel.lines:
            line.set(linewidth=1.0, markersize=2.4, clip_on=False)
        panel.grid(alpha=0.25, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=SMALL, length=2)
    first = panels[PANELS[0]]
    first.set_ylabel(VALUE, fontsize=SMALL, color=GREY)
    handles, names = first.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.05, 0.98), ncols=len(names), fontsize=TEXT, frameon=False
    )
    note = f"N = {rows[0]['samples']} test questions, 95 % bands"
    figure.text(0.98, 0.925, note, ha="right", va="center", fontsize=SMALL, color=GREY)
    return figure
