"""Tests of scoring result files on VQAv2's official files, and of the error messages for wrong files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipmapper.data.vqa_files import read_questions
from clipmapper.errors import UserError
from clipmapper.metrics.vqa import score_predictions
from clipmapper.tasks.vqa.scoring import score_files


def annotation(question_id: int, *texts: str, kind: str = "other") -> dict[str, Any]:
    answers = [{"answer": text, "answer_id": i} for i, text in enumerate(texts, start=1)]
    fields = {"answer_type": kind, "question_type": "what is", "multiple_choice_answer": "red"}
    return {"question_id": question_id, "image_id": 7, "answers": answers, **fields}


QUESTIONS = [{"question_id": i, "image_id": 7, "question": "what?"} for i in (1, 2, 3)]
ANNOTATIONS = [
    annotation(1, *["red"] * 10),
    annotation(2, *["two"] * 2, *["3"] * 8, kind="number"),
    annotation(3, *["a cat"] * 1, *["dog"] * 9),
]
FIRST = ANNOTATIONS[0]
RESULTS = [{"question_id": i, "answer": answer} for i, answer in ((2, "2"), (1, "red"), (3, "cat"))]


def write(folder: Path, **changed: Any) -> list[Path]:
    lists = {"results": RESULTS, "questions": QUESTIONS, "annotations": ANNOTATIONS, **changed}
    for name, entries in lists.items():
        content = entries if name == "results" else {"info": {}, name: entries}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return [folder / f"{name}.json" for name in lists]


def test_the_score_of_files_equals_the_score_of_their_entries(tmp_path: Path) -> None:
    results, questions, annotations = write(tmp_path)
    score = score_files(results, questions, annotations)
    assert score.by_answer_type == {"other": 65.0, "number": 60.0}
    given = {entry["question_id"]: entry["answer"] for entry in RESULTS}
    assert score == score_predictions(given, read_questions(questions, annotations))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"results": RESULTS[:1]}, ["questions.json: question_id 1 is missing from", "results.json (2 such"]),
        ({"results": [*RESULTS, {"question_id": 9, "answer": "x"}]}, ["results.json: question_id 9 is missing from"]),
        ({"results": [*RESULTS, RESULTS[0]]}, ["results.json: [3]: question_id 2 occurs twice"]),
        ({"results": []}, ["questions.json: question_id 1 is missing from", "results.json (3 such"]),
        ({"results": {"1": "red"}}, ["results.json: not a result file; give a list", '"question_id"', '"answer"']),
        ({"questions": []}, ["annotations.json: question_id 1 is missing from", "questions.json (3 such"]),
        ({"questions": [], "annotations": [], "results": []}, ["questions.json: holds no questions"]),
        ({"questions": None}, ['questions.json: "questions" is None, not a list']),
        ({"questions": [*QUESTIONS, QUESTIONS[0]]}, ["questions.json: question_id 1 occurs twice"]),
        (
            {"annotations": ANNOTATIONS[1:]},
            ["questions.json: question_id 1 is missing from", "annotations.json (1 such"],
        ),
        ({"annotations": [*ANNOTATIONS, annotation(8, "x")]}, ["annotations.json: question_id 8 is missing from"]),
        ({"annotations": [*ANNOTATIONS, FIRST]}, ["annotations.json: question_id 1 occurs twice"]),
        ({"annotations": [annotation(1), *ANNOTATIONS[1:]]}, ["annotations.json: question_id 1 has no answers"]),
        ({"annotations": [{**FIRST, "answers": ["red"]}, *ANNOTATIONS[1:]]}, ["question_id 1: an answer is 'red'"]),
    ],
)
def test_wrong_contents_are_reported_in_one_line(tmp_path: Path, changed: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        score_files(*write(tmp_path, **changed))
    message = one_line(error)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("broken", [0, 1, 2])
@pytest.mark.parametrize("content", [None, b"", b'[{"question_id": 1, "ans', b"\x89PNG\r\n\x1a\n\xff\xff", b"7"])
def test_broken_files_are_reported_in_one_line(tmp_path: Path, broken: int, content: bytes | None) -> None:
    paths = write(tmp_path)
    paths[broken].unlink() if content is None else paths[broken].write_bytes(content)
    with pytest.raises(UserError) as error:
        score_files(*paths)
    assert one_line(error).startswith(f"{paths[broken]}: ")
