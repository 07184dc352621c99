"""The answers that VQA's classifier chooses from, and the soft targets of questions."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipmapper.config.data import DataConfig
from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import Question, Splits
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.metrics.vqa import preprocess_answer

_SOFT_SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)  # by the number of annotators who gave the answer; 1.0 for four or more


@dataclass(frozen=True)
class AnswerVocabulary:
    """The answers in the order of the classifier's outputs.

    An answer may be the empty string, which is the normalised form of "a" and "the".

    Raises:
        ValueError: There are no answers, or an answer occurs twice.
    """

    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("a vocabulary needs at least one answer")
        answer, count = Counter(self.answers).most_common(1)[0]
        if count > 1:
            raise ValueError(f"the answer {answer!r} occurs {count} times")

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {answer: index for index, answer in enumerate(self.answers)}

    def index(self, answer: str) -> int | None:
        """Return the answer's class, or None if it is not in the vocabulary."""
        return self._indices.get(answer)


def build_vocabulary(*parts: Iterable[Question], min_questions: int = 9) -> AnswerVocabulary:
    """Build the answer vocabulary from the annotated questions.

    It contains each preprocessed ``multiple_choice_answer`` that at least ``min_questions`` different questions have,
    the most frequent first. Equally frequent answers are in alphabetical order, so the order of the questions doesn't
    matter. With the default of 9, VQAv2's train and val splits give 3129 answers.

    Raises:
        UserError: No answer is frequent enough.
    """
    classes: dict[str, int] = {}
    pairs = []
    for asked in map(QuestionTable.of, parts):
        numbers, texts = asked.texts("multiple_choice_answer")
        annotated = np.array([text != "" for text in texts], bool)[numbers] if texts else np.zeros(0, bool)
        annotated |= asked.answered
        of_text = [classes.setdefault(preprocess_answer(text), len(classes)) for text in texts]
        pairs.append(np.stack([np.array(of_text, np.int64)[numbers[annotated]], asked.ids[annotated]]))
    order = np.lexsort(both := np.concatenate(pairs, 1))
    first = np.concatenate([[True], (np.diff(both[:, order]) != 0).any(0)])[: len(order)]  # each question counts once
    often = np.bincount(both[0, order[first]], minlength=len(classes)).tolist()
    counts = {answer: often[k] for answer, k in classes.items() if often[k] >= min_questions}
    if not counts:
        raise UserError(
            f"no answer is the multiple_choice_answer of {min_questions} or more annotated questions; "
            "lower data.min_answer_questions, or give data.answers_file"
        )
    return AnswerVocabulary(tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))))


class SoftTargets:
    """The target scores (0..1) of questions; all classes that no annotator gave have target 0.

    The human answers are counted and looked up without preprocessing, as bottom-up-attention-vqa's
    ``compute_softscore.py`` does.

    Args:
        questions: The questions.
        vocabulary: The classes.
    """

    def __init__(self, questions: QuestionTable, vocabulary: AnswerVocabulary):
        self._classes = len(vocabulary)
        rows, numbers, texts = questions.answers()
        places = np.array([-1 if (k := vocabulary.index(text)) is None else k for text in texts], np.int64)[numbers]
        known = places >= 0
        each, counts = np.unique(rows[known] * self._classes + places[known], return_counts=True)
        #: Where the scores of each question start and, at the end, their number, int64 [n + 1].
        self.starts: np.ndarray = np.searchsorted(each, np.arange(len(questions) + 1) * self._classes)
        self._places = (each % self._classes).astype(np.int32)
        self._scores = np.array(_SOFT_SCORES, np.float32)[np.minimum(counts, len(_SOFT_SCORES) - 1)]

    def rows(self, rows: np.ndarray) -> Tensor:
        """Return the targets of the questions of these rows, [B, classes]."""
        found = np.zeros((len(rows), self._classes), np.float32)
        counts = self.starts[rows + 1] - self.starts[rows]
        at = np.repeat(self.starts[rows] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        found[np.repeat(np.arange(len(rows)), counts), self._places[at]] = self._scores[at]
        return torch.from_numpy(found)


def read_lxmert_labels(path: Path) -> AnswerVocabulary:
    """Read LXMERT's ``trainval_label2ans.json`` (a list) or ``trainval_ans2label.json`` (answer → place).

    Raises:
        UserError: The file is missing or is neither of the two, an answer occurs twice, the places are not 0, 1, 2, …,
            or the other file is in the same folder and differs.
    """
    vocabulary = _from_either(path)
    swapped = {"label2ans": "ans2label", "ans2label": "label2ans"}
    for here, there in swapped.items():
        other = path.with_name(path.name.replace(here, there))
        if other != path and other.is_file() and _from_either(other) != vocabulary:
            raise UserError(f"{path}: differs from {other.name} in the same folder; keep the one that fits the model")
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
        if type(place) is not int:  # True and 1.0 would be equal to 1 below
            raise UserError(f"{path}: the place of {answer!r} must be an integer, but is {reprlib.repr(place)}")
    answers = sorted(labels, key=labels.__getitem__)
    for expected, answer in enumerate(answers):
        if labels[answer] != expected:
            raise UserError(
                f"{path}: {answer!r} has place {labels[answer]}, but {expected} was expected; "
                f"the places must be 0 to {len(labels) - 1}, each once"
            )
    return _from_label2ans(answers, path)


def vocabulary(config: DataConfig, splits: Splits) -> AnswerVocabulary:
    """Read the label file that the config names, or build the vocabulary from training and validation."""
    if config.answers_file is not None:
        return read_lxmert_labels(Path(config.answers_file))
    return build_vocabulary(splits.train.questions, splits.val.questions, min_questions=config.min_answer_questions)
