"""Tests of the answer vocabulary and the soft targets: published rule, closed forms, files and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.answers import AnswerVocabulary, SoftTargets, build_vocabulary, read_lxmert_labels

REFERENCES = next(p for p in Path(__file__).parents if p.name == "tests") / "references"
CASES = json.loads((REFERENCES / "official_vqa_cases.json").read_text(encoding="utf-8"))


def asked(question_id: int, choice: str, *texts: str) -> Question:
    answers = tuple({"answer": text, "answer_id": i} for i, text in enumerate(texts or [choice] * 10, start=1))
    return Question(question_id, 1, "what?", answers, choice, "other", "what")


def with_counts(**counts: int) -> list[Question]:
    answers = [answer for answer, count in counts.items() for _ in range(count)]
    return [asked(question_id, answer) for question_id, answer in enumerate(answers)]


def test_nine_distinct_questions_are_enough_and_eight_are_not() -> None:
    assert build_vocabulary(with_counts(yes=9, no=8)).answers == ("yes",)
    assert build_vocabulary(with_counts(yes=9, no=8), min_questions=8).answers == ("yes", "no")


def test_a_question_read_twice_counts_once() -> None:
    questions = with_counts(yes=9, no=8)
    assert build_vocabulary([*questions, asked(16, "no"), asked(15, "no")]).answers == ("yes",)


def test_a_question_in_two_parts_counts_once() -> None:
    assert build_vocabulary(with_counts(yes=9, no=5), [asked(i, "no") for i in range(13, 16)]).answers == ("yes",)
    assert build_vocabulary(with_counts(yes=9, no=5), [asked(i, "no") for i in range(14, 18)]).answers == ("no", "yes")


def test_answers_count_in_their_preprocessed_form() -> None:
    forms = ["T-shirt", "t shirt.", "the t-shirt"] * 3
    articles = ["a", "The"] * 5
    questions = [asked(i, form) for i, form in enumerate([*forms, *articles, *["dont"] * 11])]
    assert build_vocabulary(questions).answers == ("don't", "", "t shirt")


def test_vocabulary_skips_the_whitespace_cleaning_of_the_evaluator() -> None:
    assert build_vocabulary([asked(1, "x-\ny-z")], min_questions=1).answers == ("x y z",)


def test_questions_without_annotations_do_not_count() -> None:
    unlabelled = [Question(i, 1, "what?") for i in range(100, 120)]
    assert build_vocabulary([*with_counts(yes=9), *unlabelled]).answers == ("yes",)
    with pytest.raises(UserError, match="9 or more annotated questions"):
        build_vocabulary(unlabelled)


@settings(deadline=None)
@given(st.data())
def test_order_is_by_count_then_alphabet_for_any_order_of_questions(data: st.DataObject) -> None:
    counts = data.draw(st.dictionaries(st.sampled_from(["red", "blue", "green", "yes", "no"]), st.integers(1, 4)))
    counts["kite"] = 4
    questions = data.draw(st.permutations(with_counts(**counts)))
    vocabulary = build_vocabulary(questions, min_questions=2)
    expected = sorted((-count, answer) for answer, count in counts.items() if count >= 2)
    assert vocabulary.answers == tuple(answer for _, answer in expected)


def test_index_is_the_inverse_of_answers() -> None:
    vocabulary = AnswerVocabulary(("", "yes", "no"))
    assert [vocabulary.index(answer) for answer in vocabulary.answers] == [0, 1, 2]
    assert vocabulary.index("Yes") is None
    assert len(vocabulary) == 3


@pytest.mark.parametrize(("answers", "part"), [((), "at least one"), (("yes", "no", "yes"), "'yes' occurs 2 times")])
def test_a_vocabulary_has_distinct_answers(answers: tuple[str, ...], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        AnswerVocabulary(answers)


def soft_targets(question: Question, vocabulary: AnswerVocabulary) -> dict[int, float]:
    """Return the scores above 0 of a question, which stands between two others, by class."""
    others = asked(98, "yes", "yes"), asked(99, "yes", *["yes"] * 10)
    targets = SoftTargets(QuestionTable.of([others[0], question, others[1]]), vocabulary)
    (row,) = targets.rows(np.array([1])).tolist()
    assert targets.rows(np.array([2, 1, 2])).tolist()[1] == row
    return {k: pytest.approx(score) for k, score in enumerate(row) if score}


@pytest.mark.parametrize("matches", range(11))
def test_soft_scores_equal_the_accuracy_with_ten_annotators(matches: int) -> None:
    question = asked(1, "kite", *["kite"] * matches, *["dog"] * (10 - matches))
    targets = soft_targets(question, AnswerVocabulary(("yes", "kite")))
    assert targets.get(1, 0) == CASES["softscore"][matches]["butd_score"]
    assert targets.get(1, 0) == pytest.approx(vqa_accuracy("kite", question.answers))
    assert set(targets) <= {1}


def test_soft_targets_count_the_answers_as_they_were_typed() -> None:
    question = asked(1, "yes", *["Yes"] * 5, *["yes"] * 3, "no", "purple")
    assert soft_targets(question, AnswerVocabulary(("no", "yes", "maybe"))) == {1: 0.9, 0: 0.3}


def test_a_question_without_answers_has_no_targets() -> None:
    assert soft_targets(Question(1, 1, "what?"), AnswerVocabulary(("yes",))) == {}


# --- files


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_both_lxmert_layouts_give_the_same_vocabulary(tmp_path: Path) -> None:
    answers = ["", "woods", "trash can"]
    forward = write(tmp_path, "trainval_label2ans.json", answers)
    backward = write(tmp_path, "trainval_ans2label.json", {"trash can": 2, "": 0, "woods": 1})
    assert read_lxmert_labels(forward) == read_lxmert_labels(backward) == AnswerVocabulary(tuple(answers))


@pytest.mark.parametrize("name", ["trainval_label2ans.json", "trainval_ans2label.json"])
def test_lxmert_files_that_disagree_are_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path, "trainval_label2ans.json", ["yes", "no"])
    write(tmp_path, "trainval_ans2label.json", {"yes": 1, "no": 0})
    with pytest.raises(UserError, match=rf"{name}: differs from trainval_\w+\.json"):
        read_lxmert_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"yes": 0, "no": 2}, "'no' has place 2, but 1 was expected; the places must be 0 to 1"),
        ({"yes": 0, "no": 0}, "'no' has place 0, but 1 was expected"),
        ({"yes": 1, "no": 2}, "'yes' has place 1, but 0 was expected"),
        ({"yes": -1, "no": 0}, "'yes' has place -1, but 0 was expected"),
        ({"yes": 0, "no": "1"}, "place of 'no' must be an integer, but is '1'"),
        ({"yes": 0, "no": True}, "place of 'no' must be an integer, but is True"),
        (["yes", "no", "yes"], "'yes' occurs 2 times"),
        (["yes", 3], "[1] must be a string, but is 3"),
        ([], "at least one answer"),
        ({}, "at least one answer"),
        ("yes", "must be a JSON list of answers, but is 'yes'"),
    ],
)
def test_wrong_label_files_are_reported_in_one_line(tmp_path: Path, content: Any, part: str) -> None:
    path = write(tmp_path, "labels.json", content)
    with pytest.raises(UserError) as error:
        read_lxmert_labels(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert part in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("content", "part"), [(None, "no such file"), (b"", "not valid JSON"), (b'["y', "cut off")])
def test_missing_or_truncated_label_files_are_named(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "trainval_label2ans.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=part) as error:
        read_lxmert_labels(path)
    assert str(path) in str(error.value)
