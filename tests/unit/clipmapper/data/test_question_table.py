"""Questions in columns: every question is as it was given, in whatever way the table was made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import Question

TEXT = st.text("abé 猫\n\"'", max_size=4)
ANSWER = st.fixed_dictionaries(
    {"answer": TEXT}, optional={"answer_id": st.integers(1, 10), "raw": st.lists(st.none() | st.booleans(), max_size=2)}
)
IDS = st.integers(-(2**63), 2**63 - 1)
QUESTION = st.builds(Question, IDS, IDS, TEXT, st.lists(ANSWER, max_size=3).map(tuple), TEXT, TEXT, TEXT)
QUESTIONS = st.lists(QUESTION, max_size=6)


@settings(deadline=None)
@given(QUESTIONS, QUESTIONS)
def test_the_questions_are_those_that_were_given(first: list[Question], second: list[Question]) -> None:
    table = QuestionTable.joined((first, QuestionTable.of(second)))
    whole = [*first, *second]
    assert list(table) == whole
    assert table == whole == list(table[:])
    assert [table[k] for k in range(-len(whole), len(whole))] == whole * 2
    assert table[1:] == whole[1:]
    assert (table.ids.tolist(), table.image_ids.tolist()) == (
        [q.question_id for q in whole],
        [q.image_id for q in whole],
    )
    for name in ("question", "multiple_choice_answer", "answer_type", "question_type"):
        numbers, texts = table.texts(name)
        assert [texts[k] for k in numbers] == [getattr(q, name) for q in whole]
        assert sorted(texts) == sorted({getattr(q, name) for q in whole})
    rows, numbers, texts = table.answers()
    found = [(row, texts[k]) for row, k in zip(rows.tolist(), numbers.tolist(), strict=True)]
    assert found == [(row, answer["answer"]) for row, q in enumerate(whole) for answer in q.answers]
    assert len(set(texts)) == len(texts)


@settings(deadline=None)
@given(QUESTIONS)
def test_a_table_of_some_rows_is_one_of_these_questions(questions: list[Question]) -> None:
    rows = np.random.default_rng(len(questions)).permutation(len(questions))[: len(questions) // 2 + 1]
    taken, made = QuestionTable.of(questions).take(rows), QuestionTable.of([questions[k] for k in rows])
    assert taken == made
    for name in ("question", "answer_type"):
        assert sorted(taken.texts(name)[1]) == sorted(made.texts(name)[1])
    columns = ("question_id", "image_id", "question", "answers", "multiple_choice_answer", "answer_type")
    assert taken.digest(*columns) == made.digest(*columns)
    assert QuestionTable.of(questions)[: len(rows)].digest(*columns) == QuestionTable.of(questions[: len(rows)]).digest(
        *columns
    )


@pytest.mark.parametrize(
    "other",
    [
        Question(2, 1, "a", ({"answer": "x"},), "b", "c"),
        Question(1, 2, "a", ({"answer": "x"},), "b", "c"),
        Question(1, 1, "ab", ({"answer": "x"},), "b", "c"),
        Question(1, 1, "a", ({"answer": "xy"},), "b", "c"),
        Question(1, 1, "a", ({"answer": "x"}, {"answer": ""}), "b", "c"),
        Question(1, 1, "a", ({"answer": "x"},), "", "bc"),
    ],
)
def test_the_hash_differs_with_every_content(other: Question) -> None:
    columns = ("question_id", "image_id", "question", "answers", "multiple_choice_answer", "answer_type")
    question = Question(1, 1, "a", ({"answer": "x"},), "b", "c")
    assert QuestionTable.of([question]).digest(*columns) != QuestionTable.of([other]).digest(*columns)


def test_an_empty_table_has_no_questions() -> None:
    table = QuestionTable.of([])
    assert list(table) == []
    assert not table
    assert table == ()
    assert table.texts("question")[1] == []
    assert table.digest("answers") == QuestionTable.of([Question(1, 1, "a")])[:0].digest("answers")
