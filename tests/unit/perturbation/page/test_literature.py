"""The paper's tables: what is quoted and from where, and the runs of the page beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import CONFIG, Parsed, page_of, write_config, write_evaluation, write_explain, write_perturb

from clipmapper.files import read_json, write_json
from perturbation.page.literature import ANSWERS, CAPTIONS, findings_table, literature, tables
from perturbation.page.runs import Run, read_run

PAPER = Path(__file__).resolve().parents[5] / "shared" / "paper.txt"
VQAV2 = {"name": "vqav2", "reserved": 10000, "reserve_from": "val2014", "test_split": None}
ANSWERED = {
    "accuracy": 64.25,
    "by_answer_type": {"other": 55.0, "yes/no": 80.5},
    "by_question_type": {},
    "questions": 10000,
}
CAPTIONED = {"BLEU-4": 0.5, "CIDEr": 1.25, "METEOR": None, "images": 3, "notes": {}}


def scored(folder: Path, split: str, scores: dict[str, Any], **config: Any) -> Run:
    write_config(folder, "evaluate", **config)
    write_json(folder / "metrics.json", {split: scores, "config": CONFIG})
    return read_run(folder)


def test_runs_stand_above_the_literature(tmp_path: Path) -> None:
    [table] = tables({"run 1": scored(tmp_path / "run", "val", ANSWERED, data=VQAV2)})
    name, cells = table.rows[0]
    assert name == "run 1, mapper b"
    texts = [cell.text for cell in cells]
    assert texts[:-2] == ["VQAv2 val2014, questions kept from training", "80.50", "–", "55.00", "64.25"]
    assert "shapes-tiny" in texts[-2]
    assert "10,000 scored" in texts[-2]
    assert name not in table.muted
    assert {each for each, _ in table.rows[1:]} == table.muted


def test_scores_of_captions_are_multiplied_by_100(tmp_path: Path) -> None:
    about = {"task": {"name": "caption"}, "data": {"name": "coco", "karpathy": "dataset_coco.json"}}
    [table] = tables({"run 2": scored(tmp_path / "run", "test", CAPTIONED, **about)})
    texts = [cell.text for cell in table.rows[0][1]]
    assert texts[:5] == ["COCO Karpathy test", "50.00", "125.00", "–", "–"]
    assert "greedy decoding" in texts[5]


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        ({"annotations": "/data/v2_mscoco_val2014_annotations.json"}, "VQAv2, v2_mscoco_val2014_annotations.json"),
        ({"annotations": "/data/v2_shapes_test_annotations.json"}, ""),
    ],
)
def test_a_result_file_is_named_by_what_it_was_scored_on(tmp_path: Path, files: dict[str, str], shown: str) -> None:
    run = scored(tmp_path / "run", "predictions", ANSWERED, predictions="results.json", data=VQAV2, **files)
    found = [table.rows[0] for table in tables({"run 1": run})]
    assert [(name, cells[0].text) for name, cells in found] == ([("run 1", shown)] if shown else [])


def test_the_page_shows_the_literature_only_beside_scores_on_its_data(tmp_path: Path) -> None:
    scored(tmp_path / "run", "val", ANSWERED, data=VQAV2)
    page = Parsed(page_of(tmp_path / "run")).text
    assert "LXMERT" in page
    assert "github.com/airsplay/lxmert" in page
    for other in (write_evaluation(tmp_path / "shapes"), write_explain(tmp_path / "explained")):
        assert "LXMERT" not in Parsed(page_of(other)).text


def test_findings_stand_beside_the_difference_of_the_run(tmp_path: Path) -> None:
    folder = write_perturb(tmp_path / "run", {"uniform": 20.0, "weighted": 30.0, "rollout": 10.0, "random": 0.0})
    assert findings_table({"run 1": read_run(folder)}) == []  # generated scenes
    content = read_json(folder / "perturbation.json")
    write_json(folder / "perturbation.json", {**content, "config": {**content["config"], "data": VQAV2}})
    [table] = findings_table({"run 1": read_run(folder)})
    found = {name: cells[1] for name, cells in table.rows}
    assert table.heads[1] == "run 1, mapper b"
    assert found["text: weighted − uniform"].text == "+10.0"
    assert found["image: weighted − rollout"].text == "+20.0"
    low, high = (float(end) for end in re.findall(r"[-+\d.]+", found["text: weighted − uniform"].interval))
    assert low <= 10 <= high
    assert found["text: weighted − genatt"].text == "–"


@pytest.mark.parametrize(("task", "heads"), [("vqa", ANSWERS), ("caption", CAPTIONS)])
def test_every_row_says_its_scores_its_split_its_setup_and_its_source(task: str, heads: tuple[str, ...]) -> None:
    for row in literature()[task]:
        assert len(row["scores"]) == len(heads)
        assert all(score is None or 15 < score < 120 for score in row["scores"])
        assert re.fullmatch(r"VQAv2 test-(dev|std)|COCO( Karpathy test)?", row["data"])
        assert len(row["setup"]) > 10
        assert re.match(r"\w.* 20\d\d, .+", row["source"]), row["source"]


@pytest.mark.skipif(not PAPER.is_file(), reason="the text of the paper is not there")
def test_the_quoted_scores_are_those_of_the_paper() -> None:
    found = {}
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        values = [None if cell == "-" else float(cell) for cell in cells if re.fullmatch(r"-|[\d.]+", cell)]
        places = {8: ("VQAv2 test-dev", "VQAv2 test-std"), 4: ("COCO Karpathy test",)}.get(len(values), ())
        found |= {(plain_name(name), place): values[4 * n : 4 * n + 4] for n, place in enumerate(places)}
    found = {key: values for key, values in found.items() if any(values)}
    rows = [row for task in ("vqa", "caption") for row in literature()[task]]
    quoted = [row for row in rows if row["source"].startswith("Huang et al. 2023, Table")]
    assert {(plain_name(row["model"]), row["data"]): row["scores"] for row in quoted} == found


def plain_name(name: str) -> str:
    """Return a name in lower case without what is in parentheses."""
    return name.partition(" (")[0].lower()
