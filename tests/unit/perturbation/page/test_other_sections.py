"""Sections of the other commands: localisation, randomisation, scores, and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import write_config, write_evaluation, write_llava, write_localisation, write_sanity

from clipmapper.files import write_json
from perturbation.page import localising, sections
from perturbation.page.runs import read_run
from perturbation.page.view import Chart, Section, Table


def parts(section: Section) -> tuple[dict[str, Table], list[Chart]]:
    tables = {part.title: part for part in section.parts if isinstance(part, Table)}
    return tables, [part for part in section.parts if isinstance(part, Chart)]


def test_localisation(tmp_path: Path) -> None:
    section = localising.section(read_run(write_localisation(tmp_path / "run")))
    about = "Image, relevance on the evidence"
    assert section.findings[:2] == [
        f"{about}: above chance (0.200) for near.",
        f"{about}: not told apart from chance (0.200), or below it, for far.",
    ]
    assert section.findings[2].startswith(f"{about}: most for near, 0.")
    assert section.findings[2].endswith("; no other interval overlaps with it.")
    tables, [chart] = parts(section)
    table = tables["Agreement with the evidence ↑"]
    assert [name for name, _ in table.rows] == ["near", "far", "deletion", "chance"]
    assert [cells[0].marked for _, cells in table.rows] == [False, True, False, False]
    assert "Questions of the kind color ↑" in tables
    left, _, right, _ = chart.panels[0].frame
    assert chart.panels[0].chance == pytest.approx(left + 0.2 * (right - left), abs=0.01)


def test_explainers_whose_intervals_overlap_are_not_told_apart() -> None:
    row = {"modality": "image", "metric": "mass_accuracy", "above_chance_ci95": [0.1, 0.2], "value": 0.5}
    rows = [
        {**row, "explainer": "a", "ci95": [0.4, 0.6]},
        {**row, "explainer": "b", "value": 0.45, "ci95": [0.3, 0.41]},
        {**row, "explainer": "c", "value": 0.2, "ci95": [0.1, 0.39]},
        {**row, "explainer": "chance", "value": 0.1},
    ]
    assert localising.findings(rows)[1].endswith(
        "most for a, 0.500 [0.400, 0.600]; not told apart by the intervals from b."
    )


def test_randomisation(tmp_path: Path) -> None:
    section = sections.randomisation(read_run(write_sanity(tmp_path / "run")))
    about = "Image, all layers random: the correlation with the original is"
    assert section.findings[0] == f"{about} not told apart from 0 for falls."
    assert section.findings[1].startswith(f"{about} not 0 for stays (0.6")
    tables, [chart] = parts(section)
    [table] = tables.values()
    assert {name: cells[0].marked for name, cells in table.rows} == {"stays": False, "falls": True}
    assert [tick.label for tick in chart.panels[0].x_ticks] == ["none", "head", "all"]
    assert [len(series.points) for series in chart.panels[0].series] == [3, 3]


def test_scores_of_answers(tmp_path: Path) -> None:
    section = sections.scores(read_run(write_evaluation(tmp_path / "run")))
    assert section.findings == ["Accuracy of the answers, test: 87.5 % of 8 questions."]
    assert section.facts == [("checkpoint", "best.ckpt")]
    assert section.asked == "How well does the model answer questions about images?"
    [table] = parts(section)[0].values()
    assert {name: cells[0].text for name, cells in table.rows} == {
        "all questions": "87.5",
        "other": "80.0",
        "color": "90.0",
    }


def test_generated_answers_and_captions(tmp_path: Path) -> None:
    section = sections.generation(read_run(write_llava(tmp_path / "run", blind=True)))
    assert section.findings == [
        "Accuracy of the answers, test: 97.5 % of 6 questions.",
        "Captions that are true of the scene, test: 80.0 %.",
    ]
    blind = ("blind", "all images are alike for this model")
    assert section.facts == [("parameters", "1,500"), ("words", "113"), blind]
    [table] = parts(section)[0].values()
    assert {name: cells[0].text for name, cells in table.rows}["same"] == "87.0"


def test_scores_of_captions(tmp_path: Path) -> None:
    write_config(tmp_path / "run", "evaluate")
    scores = {"CIDEr": 1.25, "images": 3, "constant": {"CIDEr": 0.5, "caption": "a"}, "true_captions": 0.25}
    write_json(tmp_path / "run" / "metrics.json", {"test": scores, "config": {}, "versions": {}})
    rows = [{"image_id": k, "caption": f"caption {k}", "references": ["a kite"], "true": k == 0} for k in range(9)]
    write_json(tmp_path / "run" / "captions_test.json", rows)
    section = sections.scores(read_run(tmp_path / "run"))
    assert section.findings == [
        "CIDEr of the captions, test: 1.250; the best single caption for all images has 0.500.",
        "True captions, test: 25.0 % of 3 captions say nothing false about the scene.",
    ]
    tables, _ = parts(section)
    assert [cells[0].text for _, cells in tables["Scores of the captions ↑"].rows] == ["1.250", "0.250", "0.500"]
    shown = tables["Generated captions"].rows
    assert len(shown) == sections.CAPTIONS
    assert [cell.text for cell in shown[0][1]] == ["caption 0", "yes", "a kite"]


@pytest.mark.parametrize("command", ["benchmark", "pretrain_clip"])
def test_measured_numbers(tmp_path: Path, command: str) -> None:
    write_config(tmp_path, command)
    numbers = {"a ratio": 2.5, "versions": {}}
    name, content = {
        "benchmark": ("benchmark.json", numbers),
        "pretrain_clip": ("shapes-tiny.report.json", {"figures": numbers}),
    }[command]
    write_json(tmp_path / name, content)
    [table] = parts(sections.costs(read_run(tmp_path)))[0].values()
    assert [(name, cells[0].text) for name, cells in table.rows] == [("a ratio", "2.500")]
