"""The answers a VQA model chooses from, and the soft targets it learns.

Source: bottom-up-attention-vqa ``tools/compute_softscore.py`` (Anderson et al. 2018; used by LXMERT and others).
"""

from __future__ import annotations

import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clipmapper.config.data import DataConfig
from clipmapper.data.records import Question
from clipmapper.data.splits import Splits
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.metrics.vqa import preprocess_answer

_SOFT_SCORES = {1: 0.3, 2: 0.6, 3: 0.9}  # by the number of annotators who gave the answer; 1 from four on


@dataclass(frozen=True)
class AnswerVocabulary:
    """The answers in the order of the classifier's outputs; raises ``ValueError`` where one is there twice or none is.

    An answer may be the empty string: "a" and "the" become that.
    """

    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("a vocabulary needs at least one answer")
        answer, count = Counter(self.answers).most_common(1)[0]
        if count > 1:
            raise ValueError(f"the answer {answer!r} is there {count} times")

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {answer: index for index, answer in enumerate(self.answers)}

    def index(self, answer: str) -> int | None:
        """The answer's place, or ``None`` for an answer outside the vocabulary."""
        return self._indices.get(answer)


def build_vocabulary(questions: Iterable[Question], min_questions: int = 9) -> AnswerVocabulary:
    """The preprocessed ``multiple_choice_answer`` of at least ``min_questions`` distinct questions, commonest first.

    Questions without annotations don't count. Equally common answers are in alphabetical order, so the order of the
    questions doesn't matter. With 9, VQAv2's train and val splits give 3129 answers. Raises ``UserError`` where no
    answer is common enough.
    """
    asked_by: defaultdict[str, set[int]] = defaultdict(set)
    for question in questions:
        if question.answers or question.multiple_choice_answer:
            asked_by[preprocess_answer(question.multiple_choice_answer)].add(question.question_id)
    counts = {answer: len(ids) for answer, ids in asked_by.items() if len(ids) >= min_questions}
    if not counts:
        raise UserError(
            f"no answer is the right one of {min_questions} or more annotated questions; "
            "lower data.min_answer_questions, or give data.answers_file"
        )
    return AnswerVocabulary(tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))))


def soft_targets(question: Question, vocabulary: AnswerVocabulary) -> dict[int, float]:
    """Target scores (0..1) by place in the vocabulary; places that are not named are 0.

    The human answers are counted and looked up as they were typed, without preprocessing, as the source does.
    """
    counts = Counter(answer["answer"] for answer in question.answers)
    places = {vocabulary.index(str(answer)): count for answer, count in counts.items()}
    return {place: _SOFT_SCORES.get(count, 1.0) for place, count in places.items() if place is not None}


def read_lxmert_labels(path: Path) -> AnswerVocabulary:
    """Read LXMERT's ``trainval_label2ans.json`` (a list) or ``trainval_ans2label.json`` (answer → place).

    Where both lie side by side they must agree. Raises ``UserError`` where a file is missing or is neither of the two,
    an answer is there twice, or the places are not 0, 1, 2, ….
    """
    vocabulary = _from_either(path)
    swapped = {"label2ans": "ans2label", "ans2label": "label2ans"}
    for here, there in swapped.items():
        other = path.with_name(path.name.replace(here, there))
        if other != path and other.is_file() and _from_either(other) != vocabulary:
            raise UserError(f"{path}: does not agree with {other.name} beside it; keep the one that fits the model")
    return vocabulary


def _from_either(path: Path) -> AnswerVocabulary:
    labels = read_json(path)
    return _from_ans2label(labels, path) if isinstance(labels, dict) else _from_label2ans(labels, path)


def _from_label2ans(labels: Any, path: Path) -> AnswerVocabulary:
    if not isinstance(labels, list):
        raise UserError(f"{path}: must be a JSON list of answers, but is {reprlib.repr(labels)}")
    for place, answer in enumerate(labels):
        if not isinstance(answer, str):
            raise UserError(f"{path}: [{place}] must be a string, but is {reprlib.repr(answer)}")
    try:
        return AnswerVocabulary(tuple(labels))
    except ValueError as error:
        raise UserError(f"{path}: {error}; each answer must be listed once") from error


def _from_ans2label(labels: dict[str, Any], path: Path) -> AnswerVocabulary:
    for answer, place in labels.items():
        if type(place) is not int:  # True and 1.0 would pass for 1 below
            raise UserError(f"{path}: the place of {answer!r} must be an integer, but is {reprlib.repr(place)}")
    answers = sorted(labels, key=labels.__getitem__)
    for expected, answer in enumerate(answers):
        if labels[answer] != expected:
            raise UserError(
                f"{path}: {answer!r} has place {labels[answer]} where {expected} is due; "
                f"the places must be 0 to {len(labels) - 1}, each once"
            )
    return _from_label2ans(answers, path)


def vocabulary(config: DataConfig, splits: Splits) -> AnswerVocabulary:
    """LXMERT's label file where the config names one, else built from training and validation."""
    if config.answers_file is not None:
        return read_lxmert_labels(Path(config.answers_file))
    return build_vocabulary((*splits.train.questions, *splits.val.questions), config.min_answer_questions)
