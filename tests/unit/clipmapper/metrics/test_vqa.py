"""Tests of the VQA accuracy against results of the official evaluator, slow versions and hand-written cases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.data.records import Question
from clipmapper.metrics.vqa import normalize_answer, preprocess_answer, score_predictions, vqa_accuracy

REFERENCES = next(p for p in Path(__file__).parents if p.name == "tests") / "references"
CASES = json.loads((REFERENCES / "official_vqa_cases.json").read_text(encoding="utf-8"))
MARKS = ';/[]"{}()=+\\_-><@`,?!'
SNIPPETS = st.sampled_from([*MARKS, *" .:'$\n\t", "a", "The", "one", "Ten", "1", "2,3", "١", "dont", "youd've", "kite"])
TEXTS = st.lists(SNIPPETS, max_size=12).map("".join)


def humans(*texts: str) -> list[dict[str, Any]]:
    return [{"answer": text, "answer_id": i} for i, text in enumerate(texts, start=1)]


# --- normalisation


@pytest.mark.parametrize("case", CASES["normalise"], ids=lambda case: repr(case["input"]))
def test_normalisation_equals_the_official_one(case: dict[str, str]) -> None:
    assert normalize_answer(case["input"]) == case["official"]
    assert preprocess_answer(case["input"]) == case["butd"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red, white kite.", "red white kite"),
        ("red,white", "red white"),  # a comma between letters separates words …
        ("red, blue,white", "red bluewhite"),  # … but if any comma touches a space, all commas are removed
        ("red- white-blue", "red whiteblue"),
        ("1,2 and red-blue", "12 and redblue"),  # a comma between two digits removes all marks
        ("１,２ red-blue", "１２ redblue"),  # any Unicode digit counts
        (".5 1. 1..5 p.m.", ".5 1 1.5 pm"),  # only a period before a digit is kept
        ("." * 33, "."),  # at most 32 periods are removed
        ("5:30 $5 5% a&b ' |", "5:30 $5 5% a&b ' |"),  # marks that aren't on the list
        ("None of ten TWO one-two", "0 of 10 2 1 2"),
        ("the An a-the", ""),  # articles are dropped after the punctuation
        ("somebody'd somebodyd", "somebodyd somebodyd"),
        ("Im Ive Id've I'dve", "im ive id've i'dve"),  # the contractions with capital letters never match
        ("DONT couldn'tve couldnt've couldntve", "don't couldn't've couldn't've couldntve"),
        ("ow's'at 'ows'at 'ow'sat yall'd've y'allll twas", "'ow's'at 'ow's'at 'ow's'at y'all'd've y'all'll 'twas"),
        ("hed weve shed id were well its", "he'd we've shed id were well its"),
        ("red\u2028kite\u00a0x", "red kite x"),
    ],
)
def test_unexpected_rules_of_the_normalisation(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_only_normalize_answer_cleans_whitespace_before_it_replaces_marks() -> None:
    assert normalize_answer("x-\ny-z") == "x yz"
    assert preprocess_answer("x-\ny-z") == "x y z"
    assert normalize_answer(" -x-y") == "x y"
    assert preprocess_answer(" -x-y") == "xy"


def slow_preprocess(text: str) -> str:
    """Apply the rules literally, mark by mark and period by period, without the contractions."""
    out = text
    for mark in MARKS:
        touches_space = any(pair in text for pair in (mark + " ", " " + mark))
        out = out.replace(mark, "" if touches_space or re.search("[0-9١],[0-9١]", text) else " ")
    removed, position = 0, 0
    while position < len(out):
        if out[position] == "." and not out[position + 1 : position + 2].isdecimal() and removed < 32:
            out, removed = out[:position] + out[position + 1 :], removed + 1
        else:
            position += 1
    digits = {"none": "0", "one": "1", "ten": "10"}
    return " ".join(digits.get(word, word) for word in out.lower().split() if word not in ("a", "an", "the"))


@settings(deadline=None, max_examples=300)
@given(TEXTS.filter(lambda text: "'" not in text and "dont" not in text))
def test_preprocessing_equals_the_slow_version(text: str) -> None:
    assert preprocess_answer(text) == slow_preprocess(text)


# --- accuracy


@pytest.mark.parametrize("case", CASES["accuracy"], ids=lambda case: f"{case['pred']!r} {case['note']}")
def test_accuracy_equals_the_official_one(case: dict[str, Any]) -> None:
    assert vqa_accuracy(case["pred"], humans(*case["answers"])) == pytest.approx(case["accuracy"], abs=1e-12)


@pytest.mark.parametrize("matches", range(11))
def test_ten_annotators_with_ids_give_the_closed_form(matches: int) -> None:
    answers = humans(*["kite"] * matches, *["dog"] * (10 - matches))
    expected = {0: 0, 1: 0.3, 2: 0.6, 3: 0.9}.get(matches, 1)
    assert vqa_accuracy("kite", answers) == pytest.approx(expected, abs=1e-12)
    assert CASES["softscore"][matches]["official_expected"] == pytest.approx(expected)


def test_unanimous_answers_are_compared_without_normalisation() -> None:
    assert vqa_accuracy("Yes", humans(*["yes"] * 10)) == 0
    assert vqa_accuracy("Yes", humans(*["yes"] * 9, "no")) == 1
    assert vqa_accuracy("Yes", humans(*["yes"] * 9, " yes\n")) == 0  # whitespace is cleaned before the comparison
    assert vqa_accuracy("\tyes\n", humans(*["yes"] * 10)) == 1
    assert vqa_accuracy("yes", humans(*["Yes"] * 10)) == 0
    assert vqa_accuracy("the yes", humans(*["yes"] * 9, "Yes")) == 1


def test_other_annotators_are_the_entries_that_differ() -> None:
    without_ids = [{"answer": text} for text in ["red"] * 5 + ["blue"] * 5]
    assert vqa_accuracy("red", without_ids) == pytest.approx(0.5)  # no "red" entry has another "red" among the others
    repeated = [{"answer": text, "answer_id": 1} for text in ["red"] * 2 + ["blue"] * 8]
    assert vqa_accuracy("red", repeated) == pytest.approx(0.8 * 2 / 3)
    confidence = [{"answer": "red", "answer_confidence": word} for word in ("yes", "maybe", "no")] + [{"answer": "x"}]
    assert vqa_accuracy("red", confidence) == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert vqa_accuracy("red", [{"answer": "red"}, {"answer": "Red"}, {"answer": "x"}]) == pytest.approx(2 / 9)


def test_the_given_answers_are_not_changed() -> None:
    answers = humans("The Dog", "dog")
    vqa_accuracy("dog", answers)
    assert answers == humans("The Dog", "dog")


def test_no_human_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        vqa_accuracy("yes", [])


def slow_accuracy(prediction: str, answers: list[dict[str, Any]]) -> float:
    """Compare every annotator with every other, literally as the definition says."""
    given_texts = [re.sub("[\n\t]", " ", answer["answer"]).strip() for answer in answers]
    prediction = re.sub("[\n\t]", " ", prediction).strip()
    if any(text != given_texts[0] for text in given_texts):
        given_texts = [normalize_answer(text) for text in given_texts]
        prediction = normalize_answer(prediction)
    entries = [{**answer, "answer": text} for answer, text in zip(answers, given_texts, strict=True)]
    total = 0.0
    for one in entries:
        matches = sum(1 for other in entries if other != one and other["answer"] == prediction)
        total += min(1.0, matches / 3)
    return total / len(entries)


ANSWER_TEXTS = st.sampled_from(["yes", "Yes", "yes.", " yes", "no", "two", "2", "a", "", "red-blue", "red blue"])
ENTRIES = st.fixed_dictionaries(
    {"answer": ANSWER_TEXTS},
    optional={"answer_id": st.integers(1, 4), "answer_confidence": st.sampled_from(["yes", "no"])},
)


@settings(deadline=None, max_examples=300)
@given(ANSWER_TEXTS, st.lists(ENTRIES, min_size=1, max_size=12))
def test_accuracy_equals_the_slow_version(prediction: str, answers: list[dict[str, Any]]) -> None:
    accuracy = vqa_accuracy(prediction, answers)
    assert accuracy == pytest.approx(slow_accuracy(prediction, answers), abs=1e-12)
    assert 0 <= accuracy <= 1


# --- scores


def test_scores_by_type_are_rounded_percentages() -> None:
    questions = [
        Question(1, 7, "?", tuple(humans(*["red"] * 10)), "red", "other", "what is"),
        Question(2, 7, "?", tuple(humans(*["two"] * 2, *["3"] * 8)), "3", "number", "how many"),
        Question(3, 7, "?", tuple(humans("a cat", *["dog"] * 9)), "dog", "other", "what is"),
    ]
    score = score_predictions({2: "2", 1: "red", 3: "cat"}, questions)
    assert score.per_question == pytest.approx({1: 1, 2: 0.6, 3: 0.3})
    assert score.overall == 63.33
    assert score.by_answer_type == {"other": 65.0, "number": 60.0}
    assert score.by_question_type == {"what is": 65.0, "how many": 60.0}
    assert score.questions == 3


def test_scoring_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, clipmapper.metrics.vqa; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REFERENCES.parents[1])
