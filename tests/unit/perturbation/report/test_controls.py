"""The comparison of gaps with those of the controls, for samples whose gaps are known."""

from __future__ import annotations

import numpy as np
import pytest

from perturbation.report.curves import Curves, comparison_rows, gap_rows
from perturbation.report.figures import curve_figure
from perturbation.report.tables import area_table
from perturbation.statistics import bootstrap_interval, holm, sign_flip_p_value

GAPS = {
    ("good", "image"): 0.5,
    ("good", "text"): 0.2,
    ("random", "image"): 0.0,
    ("random", "text"): 0.0,
    ("first", "text"): 0.19,
}


def curves(runs: int = 1) -> Curves:
    """Return 60 samples with constant curves: 0 in the positive order, and noise around the gap in the negative one."""
    draw = np.random.default_rng(0)
    values = {}
    for (explainer, modality), gap in GAPS.items():
        noisy = gap + 0.1 * draw.normal(size=(runs, 60, 1)) * np.ones(2)
        values[explainer, modality, "positive"] = {"accuracy": np.zeros((runs, 60, 2))}
        values[explainer, modality, "negative"] = {"accuracy": noisy}
    return Curves(values, (0.0, 1.0), 0, frozenset({"random", "first"}))


def gaps(found: Curves, explainer: str, modality: str) -> np.ndarray:
    gap: np.ndarray = 100 * found.values[explainer, modality, "negative"]["accuracy"][0, :, 0]
    return gap


def test_a_gap_is_compared_with_all_controls_of_its_modality() -> None:
    found = curves()
    rows = {(row["explainer"], row["modality"]): row for row in gap_rows(found)}
    assert list(rows) == list(GAPS)
    own = rows["good", "text"]
    differences = np.stack([gaps(found, "good", "text") - gaps(found, name, "text") for name in ("random", "first")], 1)
    p = sign_flip_p_value(differences)
    for k, each in enumerate(own["controls"]):
        assert each["control"] == ("random", "first")[k]
        assert each["difference"] == pytest.approx(differences[:, k].mean())
        assert each["ci95"] == pytest.approx(bootstrap_interval(differences)[:, k].tolist())
        assert each["p"] == pytest.approx(p[k])
        assert each["p_holm"] == pytest.approx(holm(p)[k])
    assert own["above_controls"] is False  # above the random order, but not above an order by position
    assert [each["p_holm"] < 0.05 for each in own["controls"]] == [True, False]
    assert rows["good", "image"]["above_controls"] is True
    assert [each["control"] for each in rows["good", "image"]["controls"]] == ["random"]
    assert rows["random", "image"]["above_controls"] is None  # there is no other control
    assert [rows[key]["control"] for key in GAPS] == [False, False, True, True, True]


def test_pairs_are_compared_only_in_modalities_that_both_score() -> None:
    pairs = [(row["modality"], row["first"], row["second"]) for row in comparison_rows(curves())]
    text = [("text", "good", "random"), ("text", "good", "first"), ("text", "random", "first")]
    assert pairs == [("image", "good", "random")] * 3 + text * 3
    assert [row["p_holm"] == row["p"] for row in comparison_rows(curves())[:3]] == [True] * 3


def test_several_runs_must_agree_to_be_above() -> None:
    """The mean difference is significant over samples, but one run of two has no gap."""
    found = curves(runs=2)
    found.values["good", "image", "negative"]["accuracy"][1] = found.values["random", "image", "negative"]["accuracy"][
        1
    ]
    row = next(row for row in gap_rows(found) if (row["explainer"], row["modality"]) == ("good", "image"))
    assert row["controls"][0]["p_holm"] < 0.05
    assert row["controls"][0]["runs"][1] == pytest.approx(0)
    assert row["above_controls"] is False


def test_the_table_shows_the_comparison_and_the_figure_every_explainer() -> None:
    found = curves()
    rows = [
        {"explainer": e, "control": e in found.controls, "modality": m, "direction": d, "steps": [0, 1]}
        | {"samples": 7}
        | {"accuracy": [0.5, 0.5], "accuracy_ci95": [[0.4, 0.4], [0.6, 0.6]], "auc": 50.0, "auc_ci95": [40.0, 60.0]}
        for e, m in GAPS
        for d in ("positive", "negative")
    ]
    table = area_table(rows, gap_rows(found), "accuracy")
    lines = table["md"].splitlines()
    assert lines[0].endswith("| text gap ↑ | image above controls | text above controls |")
    assert lines[2].endswith("| yes | no |")
    assert lines[4].startswith("| first | – | – | – | **50.0 [40.0, 60.0]** |")
    assert lines[6] == "| gap minus that of | image: random | text: random | text: first |"
    assert lines[8].split(" | ")[0] == "| good"
    assert lines[8].count("*") == 2  # both differences to the random order
    assert lines[10].split(" | ")[1:3] == ["–", lines[10].split(" | ")[2]]
    assert r"first & – & – & – & \textbf{50.0" in table["tex"]
    legends = [panel.get_legend() for panel in curve_figure(rows, "accuracy").axes if panel.get_legend()]
    names = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    both = "50.0 | 50.0"
    assert names == [[f"good  {both}", f"random  {both}"], [f"good  {both}", f"random  {both}", f"first  {both}"]]
