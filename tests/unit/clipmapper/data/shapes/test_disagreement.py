"""Disagreement of annotators: the agreement of people in VQA, plausible answers, and nothing else changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from shapes_data import load, shapes_config, write_all
from shapes_evaluator import COLORS, SHAPES

from clipmapper.data.shapes.disagreement import agreement, disagree
from clipmapper.data.shapes.questions import KINDS, ShapesQuestion
from clipmapper.data.shapes.write import SPLITS, draw_sample

# Antol et al. 2015, "VQA: Visual Question Answering", Table 1, real images, question and image.
PUBLISHED = {"yes/no": 0.9577, "number": 0.8339, "other": 0.7267}
PLAUSIBLE = {
    **{kind: {"yes", "no"} for kind in ("exist", "relation", "same")},
    "count": set("01234"),
    "side": {"left", "right", "above", "below"},
    "size": {"small", "large", "medium", "big", "little"},
    "where": {f"{height} {side}" for height in ("top", "bottom") for side in ("left", "right")},
    **{kind: set(COLORS) for kind in ("color", "relation_color")},
    **{kind: set(SHAPES) for kind in ("shape", "relation_shape")},
}


def drawn(disagreement: str, scenes: int) -> list[ShapesQuestion]:
    config = shapes_config(Path("unused"), disagreement=disagreement)
    return [q for index in range(scenes) for q in draw_sample(config, "val", index)[1]]


def accuracy_against_the_others(answers: tuple[str, ...]) -> float:
    """Return the mean of min(1, matches among the other annotators / 3), one annotator after another."""
    matches = [sum(answers[i] == answers[j] for j in range(len(answers)) if j != i) for i in range(len(answers))]
    return float(np.mean([min(1, count / 3) for count in matches]))


def agreement_by_type(questions: list[ShapesQuestion]) -> dict[str, float]:
    values = defaultdict(list)
    for q in questions:
        values[q.answer_type].append(accuracy_against_the_others(q.answers))
    return {answer_type: float(np.mean(each)) for answer_type, each in values.items()}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("yyyyyyyyyy", 1), ("yyyyyyyyyn", 0.9), ("yyyyyyyynn", 0.8 + 0.2 / 3), ("yyynnnabcd", 0.6 * 2 / 3), ("abcd", 0)],
)
def test_agreement_is_the_accuracy_of_each_annotator_against_the_others(answers: str, expected: float) -> None:
    assert agreement(tuple(answers)) == pytest.approx(expected)
    assert accuracy_against_the_others(tuple(answers)) == pytest.approx(expected)


def test_people_agree_as_often_as_in_vqa() -> None:
    """The standard error of each mean is below 0.005."""
    assert agreement_by_type(drawn("vqav2", 1500)) == pytest.approx(PUBLISHED, abs=0.01)
    assert min(agreement_by_type(drawn("none", 300)).values()) > 0.98


def test_other_answers_are_plausible_and_the_most_common_one_stays_almost_always() -> None:
    plain, mixed = drawn("none", 500), drawn("vqav2", 500)
    given = defaultdict(set)
    for q in mixed:
        given[q.kind] |= set(q.answers)
        assert Counter(q.answers)[q.answer] == max(Counter(q.answers).values())
    assert given == PLAUSIBLE
    assert set(given) == set(KINDS)
    assert np.mean([a.answer == b.answer for a, b in zip(plain, mixed, strict=True)]) > 0.97


def test_the_other_answers_of_a_group_are_equally_likely() -> None:
    count = replace(drawn("none", 1)[0], kind="count", answer_type="number", answers=("2",) * 20000, answer="2")
    found = Counter(disagree(count, Random(0)).answers)
    assert found["2"] / 20000 == pytest.approx(1 - 0.185, abs=0.01)
    assert [found[other] / 20000 for other in "0134"] == pytest.approx([0.185 / 4] * 4, abs=0.006)


def test_only_answers_differ(tmp_path: Path) -> None:
    plain, mixed = (write_all(shapes_config(tmp_path, disagreement=name)) for name in ("none", "vqav2"))
    assert plain.name == "v3-seed0-8-4-4x6-32px"
    assert mixed.name == "v3-seed0-8-4-4x6-vqav2-32px"
    files = {p.relative_to(plain) for p in plain.rglob("*") if p.is_file() and p.suffix != ".b2"}
    assert files == {p.relative_to(mixed) for p in mixed.rglob("*") if p.is_file() and p.suffix != ".b2"}
    differing = {str(name) for name in files if (plain / name).read_bytes() != (mixed / name).read_bytes()}
    assert differing == {f"v2_shapes_{split}_annotations.json" for split in SPLITS}
    answers = {"answers", "multiple_choice_answer"}
    for name in differing:
        one, other = (load(folder, name)["annotations"] for folder in (plain, mixed))
        for a, b in zip(one, other, strict=True):
            assert {k: v for k, v in a.items() if k not in answers} == {k: v for k, v in b.items() if k not in answers}


def test_the_same_seed_gives_the_same_answers() -> None:
    assert drawn("vqav2", 5) == drawn("vqav2", 5)
