"""The tables that a perturbation run prints, for rows whose numbers are known."""

from __future__ import annotations

from typing import Any

import pytest

from perturbation.report.terminal import print_areas


def area(explainer: str, modality: str, direction: str, accuracy: float, probability: float = 0) -> dict[str, Any]:
    """Return a row with an interval of one point to both sides."""
    row = {"explainer": explainer, "modality": modality, "direction": direction, "samples": 7}
    for name, prefix, value in (("accuracy", "", accuracy), ("probability", "probability_", probability)):
        row |= {name: [1], f"{name}_ci95": [[1, 1]]}
        row |= {f"{prefix}auc": value, f"{prefix}auc_ci95": [value - 1, value + 1]}
    return row


def gap(
    explainer: str, modality: str, value: float, above: bool | None, **controls: tuple[float, float]
) -> dict[str, Any]:
    """Return a gap; ``controls`` are pairs of a difference and its corrected p value."""
    row = {"explainer": explainer, "modality": modality, "measure": "accuracy", "above_controls": above}
    against = [{"control": name, "difference": d, "p_holm": p} for name, (d, p) in controls.items()]
    return row | {"gap": value, "gap_ci95": [value - 2, value + 2], "controls": against}


ROWS = [
    *(area("weighted", "image", direction, value) for direction, value in (("positive", 30.04), ("negative", 81.26))),
    *(area("random", "image", direction, value) for direction, value in (("positive", 60), ("negative", 60))),
    *(area("weighted", "text", direction, value) for direction, value in (("positive", 20), ("negative", 25))),
]
GAPS = [
    gap("weighted", "image", 51.22, True, random=(51.22, 0.001), first=(-0.5, 0.05)),
    gap("random", "image", 0, None, first=(3, 0.049)),
    gap("weighted", "text", 5, None),
]


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of each printed table, with its title as the first row."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [
        [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in block if line] for block in blocks
    ]


def test_each_modality_has_its_areas_and_the_comparison_with_the_controls(capsys: pytest.CaptureFixture[str]) -> None:
    print_areas(ROWS, GAPS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    image, controls, text = tables(out)
    assert image[0] == ["image tokens removed, 7 samples: area under the accuracy curve in percent with 95 % intervals"]
    assert image[1] == ["explainer", "positive ↓", "negative ↑", "gap ↑", "above controls"]
    assert image[3] == ["weighted", "30.0 [29.0, 31.0]", "81.3 [80.3, 82.3]", "51.2 [49.2, 53.2]", "yes"]
    assert image[4] == ["random", "60.0 [59.0, 61.0]", "60.0 [59.0, 61.0]", "0.0 [-2.0, 2.0]", "–"]
    assert image[5][0].startswith("positive: the highest scores are removed first, so less is better (↓)")
    assert controls[1] == ["explainer", "random ↑", "first ↑"]
    assert controls[3] == ["weighted", "+51.2*", "-0.5"]
    assert controls[4] == ["random", "–", "+3.0*"]
    assert "(areas_accuracy.md has the intervals)" in out
    assert text[3] == ["weighted", "20.0 [19.0, 21.0]", "25.0 [24.0, 26.0]", "5.0 [3.0, 7.0]", "–"]


def test_one_direction_has_no_gap_and_one_sample_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    row = area("weighted", "image", "positive", 30) | {"auc_ci95": [None, None]}
    print_areas([row], [])
    [table] = tables(capsys.readouterr().out)
    assert table[1] == ["explainer", "positive ↓"]
    assert table[3] == ["weighted", "30.0"]


def test_another_main_value_has_its_own_areas(capsys: pytest.CaptureFixture[str]) -> None:
    row = area("weighted", "image", "positive", 1, probability=44)
    print_areas([{key: value for key, value in row.items() if not key.startswith(("accuracy", "auc"))}], [])
    [table] = tables(capsys.readouterr().out)
    assert "area under the probability curve" in table[0][0]
    assert table[3] == ["weighted", "44.0 [43.0, 45.0]"]
