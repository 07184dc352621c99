"""The official VQA accuracy: answer normalisation, agreement with the human answers, and scores of a result file.

Source: Agrawal et al., "VQA: Visual Question Answering", and its evaluator, GT-Vision-Lab/VQA ``vqaEval.py`` run under
Python 3. Where the evaluator surprises (periods, contractions, unanimous answers) the numbers here follow it.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from clipmapper.errors import UserError
from clipmapper.files import read_json

_T = TypeVar("_T", int, str, list)

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # colon, apostrophe, $, % and & stay
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # a period after a digit goes too: the evaluator's look-behind is misspelt
_MAX_PERIODS = 32  # the evaluator passes re.UNICODE (32) where `count` is expected
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A word is mended where exactly one apostrophe is missing; "somebody'd" stands the wrong way round in the original.
_CONTRACTIONS = {
    form[:i] + form[i + 1 :]: form for form in _CONTRACTED.split() for i, letter in enumerate(form) if letter == "'"
} | {"somebody'd": "somebodyd"}


class Annotated(Protocol):
    """What scoring needs of a question; ``clipmapper.data.records.Question`` has it."""

    @property
    def question_id(self) -> int: ...
    @property
    def answers(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def answer_type(self) -> str: ...
    @property
    def question_type(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Annotation:
    question_id: int
    answers: Sequence[Mapping[str, Any]]
    answer_type: str
    question_type: str


@dataclass(frozen=True)
class VQAScore:
    """Accuracies in percent, rounded to two digits as the evaluator does; ``per_question`` 0..1, not rounded."""

    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    questions: int
    per_question: dict[int, float]


def preprocess_answer(text: str) -> str:
    """Punctuation, lower case, digits, articles, contractions: ``normalize_answer`` without its whitespace cleaning.

    This is ``preprocess_answer`` of bottom-up-attention-vqa ``compute_softscore.py``, which defines the vocabulary.
    """
    has_digit_comma = _DIGIT_COMMA.search(text) is not None
    replaced = {
        ord(mark): "" if has_digit_comma or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION
    }
    text = _PERIOD.sub("", text.translate(replaced), count=_MAX_PERIODS)
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(maxsize=1 << 17)
def normalize_answer(text: str) -> str:
    """An answer as the evaluator compares it, e.g. ``"A red, white kite."`` → ``"red white kite"``."""
    return preprocess_answer(_clean_whitespace(text))


def _clean_whitespace(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(prediction: str, answers: Sequence[Mapping[str, Any]]) -> float:
    """Agreement (0..1) of a prediction with the human answers, VQAv2's list of ``{"answer", "answer_id", …}``.

    The mean over annotators of min(1, matches among the *other* annotators / 3). "Other" are the entries that differ
    in some field, so entries without (or with repeated) ``answer_id`` leave out all their equals. If all answers are
    the same string, prediction and answers are compared without normalisation. Raises ``ValueError`` for no answers.
    """
    if not answers:
        raise ValueError("the accuracy needs at least one human answer")
    unanimous = len({_clean_whitespace(answer["answer"]) for answer in answers}) == 1
    prepare = _clean_whitespace if unanimous else normalize_answer
    annotators = [{**answer, "answer": prepare(answer["answer"])} for answer in answers]
    prediction = prepare(prediction)
    matching = [annotator for annotator in annotators if annotator["answer"] == prediction]
    scores = [min(1, (len(matching) - matching.count(annotator)) / 3) for annotator in annotators]
    return sum(scores) / len(scores)


def score_predictions(predictions: Mapping[int, str], questions: Iterable[Annotated]) -> VQAScore:
    """Score answers, by question id, on annotated questions (at least one); each question must have an answer."""
    per_question: dict[int, float] = {}
    answer_types: defaultdict[str, list[float]] = defaultdict(list)
    question_types: defaultdict[str, list[float]] = defaultdict(list)
    for question in questions:
        accuracy = vqa_accuracy(predictions[question.question_id], question.answers)
        per_question[question.question_id] = accuracy
        answer_types[question.answer_type].append(accuracy)
        question_types[question.question_type].append(accuracy)
    return VQAScore(
        overall=_percent(per_question.values()),
        by_answer_type={name: _percent(accuracies) for name, accuracies in answer_types.items()},
        by_question_type={name: _percent(accuracies) for name, accuracies in question_types.items()},
        questions=len(per_question),
        per_question=per_question,
    )


def _percent(accuracies: Collection[float]) -> float:
    return round(100 * sum(accuracies) / len(accuracies), 2)


def score_results(
    results: Sequence[Mapping[str, Any]],
    questions: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    *,
    names: tuple[str, str, str] = ("results", "questions", "annotations"),
) -> VQAScore:
    """Score entries in the official JSON layouts; ``names`` is how messages call the three lists.

    Raises ``UserError`` where a field is missing or of a wrong type, or where the results or the annotations do not
    cover exactly the questions.
    """
    result_file, question_file, annotation_file = names
    asked = [_field(entry, f"{question_file}: questions[{i}]", "question_id", int) for i, entry in enumerate(questions)]
    if not asked:
        raise UserError(f"{question_file}: holds no questions; give the question file that the results answer")
    _require_ids(asked, set(asked), question_file, "list each question once")
    known = [_annotation(entry, f"{annotation_file}: annotations[{i}]") for i, entry in enumerate(annotations)]
    mend = f"give the annotations of the same split as {question_file}"
    _require_ids([annotation.question_id for annotation in known], set(asked), annotation_file, mend)
    answers = [_result(entry, f"{result_file}: entry [{i}]") for i, entry in enumerate(results)]
    mend = f"answer each question of {question_file} exactly once"
    _require_ids([question_id for question_id, _ in answers], set(asked), result_file, mend)
    return score_predictions(dict(answers), known)


def score_files(predictions: Path, questions: Path, annotations: Path) -> VQAScore:
    """Score a result file (a JSON list of ``{"question_id", "answer"}``) on official question and annotation files.

    Raises ``UserError`` where a file is missing, is not JSON, has not the official layout or does not fit the others.
    """
    results = read_json(predictions)
    if not isinstance(results, list):
        found = reprlib.repr(results)
        raise UserError(f'{predictions}: must be a list of {{"question_id": …, "answer": …}}, but is {found}')
    return score_results(
        results,
        _field(read_json(questions), f"{questions}", "questions", list),
        _field(read_json(annotations), f"{annotations}", "annotations", list),
        names=(f"{predictions}", f"{questions}", f"{annotations}"),
    )


def _result(entry: object, where: str) -> tuple[int, str]:
    return _field(entry, where, "question_id", int), _field(entry, where, "answer", str)


def _annotation(entry: object, where: str) -> _Annotation:
    answers = _field(entry, where, "answers", list)
    if not answers:
        raise UserError(f'{where}: field "answers" is empty; every question needs at least one human answer')
    for i, answer in enumerate(answers):
        _field(answer, f"{where}.answers[{i}]", "answer", str)
    return _Annotation(
        question_id=_field(entry, where, "question_id", int),
        answers=answers,
        answer_type=_field(entry, where, "answer_type", str),
        question_type=_field(entry, where, "question_type", str),
    )


def _field(entry: object, where: str, name: str, kind: type[_T]) -> _T:
    """``entry[name]``, or a ``UserError`` that says where it should have been and what is there instead."""
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    if not isinstance(entry, Mapping):
        found = f"there is {reprlib.repr(entry)} instead of an object"
    else:
        found = f"is {reprlib.repr(value)}" if name in entry else "is missing"
    wanted = {int: "an integer", str: "a string", list: "a list"}[kind]
    raise UserError(f'{where}: field "{name}" must be {wanted}, but {found}; give a file in the official VQA layout')


def _require_ids(found: Sequence[int], wanted: Collection[int], name: str, mend: str) -> None:
    """Raise ``UserError`` unless ``found`` holds each wanted id once and no other."""
    counts = Counter(found)
    wrong = {
        "missing": [i for i in wanted if i not in counts],
        "unknown": [i for i in counts if i not in wanted],
        "repeated": [i for i, count in counts.items() if count > 1],
    }
    if any(wrong.values()):
        listed = ", ".join(f"{len(ids)} {problem} ({_first(ids)})" for problem, ids in wrong.items() if ids)
        raise UserError(f"{name}: question ids: {listed}; {mend}")


def _first(ids: Sequence[int], shown: int = 5) -> str:
    return ", ".join(map(str, sorted(ids)[:shown])) + (", …" if len(ids) > shown else "")


def summary(score: VQAScore) -> dict[str, Any]:
    """The score's part of ``metrics.json``: accuracies in percent."""
    return {
        "accuracy": score.overall,
        "by_answer_type": score.by_answer_type,
        "by_question_type": score.by_question_type,
        "questions": score.questions,
    }


def table(name: str, score: VQAScore) -> str:
    """The score as a few aligned lines for the terminal."""
    parts = {"overall": score.overall, **score.by_answer_type}
    if len(score.by_question_type) <= 12:  # VQAv2 has 65
        parts |= dict(sorted(score.by_question_type.items()))
    width = max(len(part) for part in parts)
    lines = "\n".join(f"  {part:<{width}}  {value:6.2f}" for part, value in parts.items())
    return f"accuracy on {name}, {score.questions} questions, in percent:\n{lines}"
