"""The data card docs/reference/shapes.md: its tables are current, and equal numbers that are counted in the files."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from public import PROJECT
from schemas import values
from shapes_data import asked

from clipmapper.data.shapes.card import QUESTIONS, SCENES, SEED, agreement_table, draw, kind_table, tables
from clipmapper.data.shapes.disagreement import AGREEMENT, OTHER_ANSWER
from clipmapper.data.shapes.questions import KINDS, ShapesQuestion

PAGE = (PROJECT / "docs" / "reference" / "shapes.md").read_text(encoding="utf-8")


def rows(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


@pytest.mark.slow
def test_the_tables_are_current() -> None:
    old = [table for table in tables() if f"\n\n{table}\n" not in PAGE]
    assert not old, "docs/reference/shapes.md is old: run python -m clipmapper.data.shapes.card"


def test_the_drawn_data_are_the_default_data() -> None:
    default = values("data/shapes")
    assert (default["test_scenes"], default["questions_per_scene"], default["seed"]) == (SCENES, QUESTIONS, SEED)
    assert (default["disagreement"], default["extra_questions"]) == ("none", {})


def test_the_page_has_the_published_agreement_the_shares_and_every_kind() -> None:
    assert [f"{100 * value:.2f} %" in PAGE for value in AGREEMENT.values()] == [True] * 3
    assert [f"{100 * value:.1f} %" in PAGE for value in OTHER_ANSWER.values()] == [True] * 3
    assert [kind for kind in KINDS if f"`{kind}`" not in PAGE] == []


def from_files() -> list[ShapesQuestion]:
    """Return the training questions of a small dataset, as they are written in its files."""
    return [
        ShapesQuestion(
            q.kind, q.annotation["answer_type"], q.text, (), tuple(q.evidence["objects"]), tuple(q.answers), q.answer
        )
        for q in asked()
    ]


def test_the_numbers_equal_those_counted_in_the_files() -> None:
    questions = from_files()
    for kind, answer_type, *numbers in rows(kind_table(questions)):
        chosen = [q for q in asked() if kind in ("all", f"`{q.kind}`")]
        assert {q.annotation["answer_type"] for q in chosen} == {answer_type} or kind == "all"
        counts = [Counter(q.answers) for q in chosen]
        matches = [[min(1, (count[a] - 1) / 3) for a in q.answers] for q, count in zip(chosen, counts, strict=True)]
        best: Counter[str] = Counter()
        for each in KINDS:
            common = Counter(q.answer for q in chosen if q.kind == each).most_common(1)
            best["all"] += common[0][1] if common else 0
        expected = [
            len(chosen) / len(questions),
            np.mean([not q.evidence["objects"] for q in chosen]),
            np.mean([len(count) == 1 for count in counts]),
            np.mean(matches),
            best["all"] / len(chosen),
        ]
        assert [float(number) for number in numbers] == pytest.approx([100 * value for value in expected], abs=0.051)


def test_agreement_is_counted_by_answer_type() -> None:
    questions = from_files()
    mixed = [replace(q, answer="x") if k % 3 == 0 else q for k, q in enumerate(questions)]
    for answer_type, before, equal, after, _, other_label, _ in rows(agreement_table(questions, mixed)):
        chosen = [k for k, q in enumerate(questions) if q.answer_type == answer_type]
        assert before == after
        unanimous = np.mean([len({*questions[k].answers}) == 1 for k in chosen])
        assert float(equal) == pytest.approx(100 * unanimous, abs=0.051)
        assert float(other_label) == pytest.approx(100 * np.mean([k % 3 == 0 for k in chosen]), abs=0.051)


@pytest.mark.slow
def test_both_draws_differ_in_answers_only() -> None:
    (scenes, plain), (same, mixed) = draw("none"), draw("vqav2")
    assert scenes == same
    without = [[{**asdict(q), "answers": None, "answer": None} for q in each] for each in (plain, mixed)]
    assert without[0] == without[1]
