"""The paper's tables: what is quoted, and the runs of the page beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_runs import CONFIG, Parsed, page_of, write_config, write_evaluation, write_explain

from clipmapper.files import write_json
from perturbation.page.literature import ANSWERS, CAPTIONS, rows_of_literature, tables
from perturbation.page.runs import read_run

PAPER = Path(__file__).resolve().parents[5] / "shared" / "paper.txt"


def test_runs_stand_above_the_literature(tmp_path: Path) -> None:
    [table] = tables({"run 1": read_run(write_evaluation(tmp_path / "run"))})
    name, cells = table.rows[0]
    assert name == "run 1, mapper b"
    assert [cell.text for cell in cells] == ["shapes test", "–", "–", "80.0", "87.5"]
    assert name not in table.muted
    assert {each for each, _ in table.rows[1:]} == table.muted


def test_scores_of_captions_are_multiplied_by_100(tmp_path: Path) -> None:
    write_config(tmp_path / "run", "evaluate", task={"name": "caption"})
    scores = {"BLEU-4": 0.5, "CIDEr": 1.25, "METEOR": None, "images": 3, "notes": {}}
    write_json(tmp_path / "run" / "metrics.json", {"val": scores, "config": CONFIG})
    [table] = tables({"run 2": read_run(tmp_path / "run")})
    assert [cell.text for cell in table.rows[0][1]] == ["shapes val", "50.0", "125.0", "–", "–"]


def test_the_page_shows_the_literature_only_beside_scores(tmp_path: Path) -> None:
    assert "LXMERT" in Parsed(page_of(write_evaluation(tmp_path / "run"))).text
    assert "LXMERT" not in Parsed(page_of(write_explain(tmp_path / "explained"))).text


@pytest.mark.parametrize(("task", "heads"), [("vqa", ANSWERS), ("caption", CAPTIONS)])
def test_every_row_has_its_scores(task: str, heads: tuple[str, ...]) -> None:
    for row in rows_of_literature()[task]:
        assert len(row["scores"]) == len(heads)
        assert all(score is None or 15 < score < 120 for score in row["scores"])


@pytest.mark.skipif(not PAPER.is_file(), reason="the text of the paper is not there")
def test_the_quoted_scores_are_those_of_the_paper() -> None:
    found = {}
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        values = [None if cell == "-" else float(cell) for cell in cells if re.fullmatch(r"-|[\d.]+", cell)]
        places = {8: ("VQAv2 test-dev", "VQAv2 test-std"), 4: ("COCO Karpathy test",)}.get(len(values), ())
        found |= {(plain_name(name), place): values[4 * n : 4 * n + 4] for n, place in enumerate(places)}
    found = {key: values for key, values in found.items() if any(values)}
    quoted = [row for rows in rows_of_literature().values() for row in rows]
    assert {(plain_name(row["model"]), row["data"]): row["scores"] for row in quoted} == found


def plain_name(name: str) -> str:
    """Return a name in lower case without what is in parentheses."""
    return name.partition(" (")[0].lower()
