"""Figures of curves: the first explainer is visible where curves meet."""

from __future__ import annotations

from typing import Any

import matplotlib
import pytest

from explain.figures.saving import png
from perturbation.randomise.figure import draw_curves as draw_randomisation
from perturbation.report.figures import curve_figure

NAMES = ["random", "genatt", "weighted", "mine"]
ORDER = ["weighted", "random", "genatt", "mine"]


def perturbed() -> list[dict[str, Any]]:
    ends = {"accuracy": [1.0, 0.5], "accuracy_ci95": [[0.9, 0.4], [1.0, 0.6]], "auc": 75.0, "control": False}
    about = {"modality": "image", "direction": "positive", "samples": 3, "steps": [0.0, 1.0]}
    return [{**about, **ends, "explainer": name} for name in NAMES]


def randomised() -> list[dict[str, Any]]:
    about = {"modality": "image", "correlation": 0.5, "ci95": [0.4, 0.6], "samples": 3}
    return [{**about, "explainer": name, "layer": str(k), "layers": k} for name in NAMES for k in range(2)]


@pytest.mark.parametrize("kind", ["perturbed", "randomised"])
def test_curves_are_above_those_of_later_explainers(kind: str) -> None:
    figure = curve_figure(perturbed(), "accuracy") if kind == "perturbed" else draw_randomisation(randomised())
    lines = {line.get_label(): line for line in figure.axes[0].lines if line.get_label() in NAMES}
    layers = [lines[name].get_zorder() for name in ORDER]
    assert layers == sorted(layers, reverse=True)
    assert len(set(layers)) == len(ORDER)


@pytest.mark.parametrize("kind", ["perturbed", "randomised"])
def test_the_users_settings_of_matplotlib_change_no_figure(kind: str) -> None:
    def drawn() -> bytes:
        return png(curve_figure(perturbed(), "accuracy") if kind == "perturbed" else draw_randomisation(randomised()))

    before = drawn()
    with matplotlib.rc_context({"text.usetex": True, "font.family": "no such font", "axes.labelsize": 40}):
        assert drawn() == before
