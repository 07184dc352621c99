"""Official VQA accuracy: answer normalisation, agreement with the human answers, and scores by type.

Source: Agrawal et al., "VQA: Visual Question Answering", and its evaluator, GT-Vision-Lab/VQA ``vqaEval.py`` run under
Python 3. The unexpected rules of the evaluator (for periods, contractions and unanimous answers) are reproduced.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clipmapper.console import print_table

if TYPE_CHECKING:
    from clipmapper.data.records import Question  # which imports numpy

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # colon, apostrophe, $, % and & are kept
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # also removes a period after a digit: the evaluator's look-behind has a typo
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
# A word with exactly one missing apostrophe is corrected. For "somebody'd", the evaluator's list has the two forms
# swapped.
_CONTRACTIONS = {
    form[:i] + form[i + 1 :]: form for form in _CONTRACTED.split() for i, letter in enumerate(form) if letter == "'"
} | {"somebody'd": "somebodyd"}


@dataclass(frozen=True)
class VQAScore:
    """Accuracies in percent, rounded to two decimals as the evaluator does."""

    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    questions: int  #: number of questions
    per_question: dict[int, float]  #: accuracy by question id, 0..1, not rounded


def preprocess_answer(text: str) -> str:
    """Normalise the punctuation, case, number words, articles and contractions of an answer.

    This is :func:`normalize_answer` without its cleaning of whitespace. It equals ``preprocess_answer`` of
    bottom-up-attention-vqa's ``compute_softscore.py``, which defines the answer vocabulary.
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
    """Return an answer as the evaluator compares it, e.g. ``"A red, white kite."`` → ``"red white kite"``."""
    return preprocess_answer(_clean_whitespace(text))


def _clean_whitespace(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(prediction: str, answers: Sequence[Mapping[str, Any]]) -> float:
    """Return the VQA accuracy (0..1) of a predicted answer: its agreement with the human answers.

    It is the mean over annotators of min(1, matches among the *other* annotators / 3). The others of an annotator are
    the entries that differ from it in at least one field, so that equal entries (without ``answer_id``, or with a
    repeated one) don't count for each other. If all human answers are the same string, prediction and answers are
    compared without normalisation.

    Args:
        prediction: The predicted answer.
        answers: The human answers, VQAv2's list of ``{"answer", "answer_id", …}``.

    Raises:
        ValueError: There are no human answers.
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


def score_predictions(predictions: Mapping[int, str], questions: Iterable[Question]) -> VQAScore:
    """Score predicted answers on annotated questions.

    Args:
        predictions: Predicted answer of every question, by question id.
        questions: One or more questions with human answers.
    """
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


def summary(score: VQAScore) -> dict[str, Any]:
    """Return the score's part of ``metrics.json``: accuracies in percent, and the number of questions."""
    return {
        "accuracy": score.overall,
        "by_answer_type": score.by_answer_type,
        "by_question_type": score.by_question_type,
        "questions": score.questions,
    }


def print_score(name: str, score: VQAScore) -> None:
    """Print the score as a table."""
    parts = {"all": score.overall, **score.by_answer_type}
    if len(score.by_question_type) <= 12:  # VQAv2 has 65
        parts |= dict(sorted(score.by_question_type.items()))
    rows = [[part, f"{value:.2f}"] for part, value in parts.items()]
    title = f"{name}, {score.questions} questions: official VQA accuracy in percent, by types of answers and questions"
    print_table(title, ["type", "accuracy ↑"], rows)
