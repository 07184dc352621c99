"""Tables and findings of perturbation runs whose gaps are known."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from report_runs import STEPS, write_perturb, write_pooled

from perturbation.page import perturbing
from perturbation.page.areas import told_apart
from perturbation.page.runs import read_run
from perturbation.page.view import Cell, Chart, Table


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Table]:
    section = perturbing.section(read_run(write_perturb(tmp_path / "run")))
    return {part.title: part for part in section.parts if isinstance(part, Table)}


def column(table: Table, group: str, head: str) -> dict[str, Cell]:
    """Return a column of a table by the names of its rows."""
    start = 0
    for name, span in table.groups:
        if name == group:
            place = start + list(table.heads[start : start + span]).index(head)
            return {row: cells[place] for row, cells in table.rows}
        start += span
    raise AssertionError(group)


def test_areas_and_gaps_are_those_of_the_curves(tables: dict[str, Table]) -> None:
    """The curves are 1, m and 0 at the steps 0, ½ and 1: their area is ¼ + m/2, and m is ½ ∓ gap/100."""
    table = tables["Areas of the accuracy"]
    for group in ("image", "text"):
        assert column(table, group, "positive\u00a0↓")["good"].text == "35.0"
        assert column(table, group, "negative\u00a0↑")["good"].text == "65.0"
        assert {name: cell.text for name, cell in column(table, group, "gap\u00a0↑").items()} == {
            "good": "30.0",
            "similar": "29.9",
            "random": "0.0",
        }
        low, high = column(table, group, "gap\u00a0↑")["good"].interval.strip("[]").split(", ")
        assert float(low) < 30 < float(high)
        above = {name: cell.text for name, cell in column(table, group, "above all controls").items()}
        assert above == {"good": "yes", "similar": "yes", "random": "–"}
    assert table.muted == {"random"}


def test_every_table_says_how_its_numbers_are_made(tables: dict[str, Table]) -> None:
    recipe = " ".join(tables["Areas of the accuracy"].recipe)
    assert "trapezoid rule over the steps 0, 50, 100 %" in recipe
    assert "Positive ↓" in recipe
    assert "Negative ↑" in recipe
    assert "95 % bootstrap intervals over 40 questions" in recipe
    for title in ("Gap of the accuracy minus that of each control ↑", "Gap of the accuracy, explainers compared ↑"):
        recipe = " ".join(tables[title].recipe)
        assert "paired permutation test with Holm's correction" in recipe
        assert "one trained model" in recipe


def test_differences_that_the_tests_do_not_show_are_marked(tables: dict[str, Table]) -> None:
    controls = tables["Gap of the accuracy minus that of each control ↑"]
    cell = column(controls, "image", "random")["good"]
    assert (cell.text, cell.p, cell.marked) == ("+30.0", "p < 0.001", False)
    pairs = tables["Gap of the accuracy, explainers compared ↑"]
    assert [name for name, _ in pairs.rows] == ["good", "similar"]
    first, second = column(pairs, "image", "similar")["good"], column(pairs, "image", "good")["similar"]
    assert (first.text, second.text, first.marked, second.marked) == ("+0.1", "−0.1", True, True)
    assert first.p == second.p
    ends = [[float(end.replace("−", "-")) for end in cell.interval.strip("[]").split(", ")] for cell in (first, second)]
    assert ends[0] == [-ends[1][1], -ends[1][0]]
    assert column(pairs, "image", "good")["good"].text == "–"


@pytest.mark.parametrize(
    ("ends", "p", "apart"),
    [
        ([0.1, 2], 0.01, True),
        ([-2, -0.1], 0.01, True),
        ([-0.1, 2], 0.01, False),
        ([0.1, 2], 0.05, False),
        ([None, None], 0.01, False),
    ],
)
def test_a_difference_is_told_apart_by_its_interval_and_its_test(ends: list[Any], p: float, apart: bool) -> None:
    assert told_apart({"ci95": ends, "p_holm": p, "p": 0.001, "difference": 1.0}) is apart


def test_findings_say_what_the_numbers_show(tmp_path: Path) -> None:
    found = perturbing.findings(read_run(write_perturb(tmp_path / "run", modalities=("image",))))
    assert found[0] == "Image, gap of the accuracy: good and similar are above every control (random)."
    assert found[1].startswith("Image, gap of the accuracy: good has the largest gap, 30.0 [")
    assert found[1].endswith("]; it is told apart from random; it is not told apart from similar.")
    assert found[2:] == ["These statements are about one trained model and these samples."]


def test_findings_where_nothing_differs(tmp_path: Path) -> None:
    gaps = {"good": 0.1, "bad": -20.0, "random": 0.0}
    found = perturbing.findings(read_run(write_perturb(tmp_path / "run", gaps, ("text",))))
    assert found[:2] == [
        "Text, gap of the accuracy: good is not told apart from random.",
        "Text, gap of the accuracy: bad is below random.",
    ]
    assert "good has the largest gap" in found[2]
    assert found[2].endswith("; it is told apart from bad; it is not told apart from random.")


def test_pooled_runs_speak_of_their_seeds(tmp_path: Path) -> None:
    run = read_run(write_pooled(tmp_path / "pooled", tmp_path))
    section = perturbing.section(run)
    assert section.findings[-1] == "These statements are about 2 training seeds and these samples."
    recipes = " ".join(text for part in section.parts if isinstance(part, Table) for text in part.recipe)
    assert "over 40 questions and 2 training seeds" in recipes
    assert "one trained model" not in recipes
    assert ("hash of the checkpoint", "model 1 and model 2") in section.facts


def test_only_runs_of_the_same_samples_share_a_table(tmp_path: Path) -> None:
    runs = {
        "run 1": read_run(write_perturb(tmp_path / "a", seed=1)),
        "run 2": read_run(write_perturb(tmp_path / "b", seed=2)),
        "run 3": read_run(write_perturb(tmp_path / "c", questions="others")),
        "run 4": read_run(write_perturb(tmp_path / "d", samples=30)),
    }
    [table] = perturbing.shared_tables(runs)
    assert list(table.heads) == ["run 1", "run 2", "run 1", "run 2"]
    assert {name: cell.text for name, cell in column(table, "text", "run 2").items()} == {
        "good": "30.0",
        "similar": "29.9",
        "random": "0.0",
    }
    assert perturbing.shared_tables({name: runs[name] for name in ("run 1", "run 3", "run 4")}) == []


@pytest.mark.parametrize("key", ["split", "seed", "target", "removal", "modality"])
def test_runs_that_removed_something_else_share_no_table(tmp_path: Path, key: str) -> None:
    content = read_run(write_perturb(tmp_path / "run")).result()
    other = copy.deepcopy(content)
    assert perturbing.sample_key(other) == perturbing.sample_key(content)
    other["config"][key] = "something else"
    assert perturbing.sample_key(other) != perturbing.sample_key(content)


def test_the_chart_has_the_curves_and_their_intervals(tmp_path: Path) -> None:
    section = perturbing.section(read_run(write_perturb(tmp_path / "run", modalities=("image",))))
    [chart] = [part for part in section.parts if isinstance(part, Chart)]
    assert [panel.title.split(":")[0] for panel in chart.panels] == ["image", "image"]
    left, top, right, bottom = chart.panels[0].frame
    good = chart.panels[0].series[0]
    assert [point.x for point in good.points] == [left, (left + right) / 2, right]
    assert [point.y for point in good.points] == pytest.approx([top, bottom - 0.2 * (bottom - top), bottom], abs=0.01)
    assert good.points[1].text.startswith("good, 50 % removed: 20.0 [")
    assert len(good.band.split()) == 2 * len(STEPS)
    assert [bool(key.dash) for key in chart.legend] == [False, False, True]  # controls are dashed
    assert "good, image, positive: 100.0 to 0.0, area 35.0" in chart.description


def test_a_run_of_another_model(tmp_path: Path) -> None:
    run = read_run(write_perturb(tmp_path / "run"))
    content = run.result()
    content["config"] = {
        k: v for k, v in content["config"].items() if k not in ("task", "mapper", "target", "modality")
    }
    content["config"]["model"] = {"name": "huggingface"}
    content["samples"] = content.pop("questions")
    section = perturbing.section(run)
    assert "Which patches and words did the model use for its outputs? On 40 samples" in section.asked
    assert ("explained", "the model's output") in section.facts
    assert ("hash of the samples", "first") in section.facts
    assert perturbing.sample_key(content) != perturbing.sample_key({**content, "samples": "others"})
