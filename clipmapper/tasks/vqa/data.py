"""VQA's data: questions with their frozen features, the answer vocabulary and the soft targets."""

from __future__ import annotations

import hashlib
import reprlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipmapper.checkpoint import card
from clipmapper.config.schema import DataConfig, EvaluateConfig, TrainConfig
from clipmapper.data.datasets import Questions, load_data, load_questions_of
from clipmapper.data.records import Question, Splits, VQAData
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import describe
from clipmapper.features.folders import ready_encoder
from clipmapper.features.images import image_features
from clipmapper.features.store import FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.files import read_json, write_json
from clipmapper.metrics.vqa import preprocess_answer
from clipmapper.nn import Tokens, on_device
from clipmapper.training.identity import digest


@dataclass(frozen=True)
class TaskData:
    """The questions of all splits, the answer vocabulary and the frozen features."""

    splits: Questions
    answers: AnswerVocabulary
    encoder: FrozenClip
    images: FrozenFeatures
    texts: FrozenFeatures
    sees: str  #: what the model gets: both, question or image

    @cached_property
    def datasets(self) -> dict[str, VQADataset]:
        """Datasets of all splits by name.

        Raises:
            UserError: None of the images of a split could be read.
        """
        features = (self.images, self.texts)
        return {
            name: _dataset(name, part, *features, self.answers, self.sees) for name, part in self.splits.parts.items()
        }

    @property
    def train(self) -> VQADataset:
        """Training dataset."""
        return self.datasets["train"]

    @property
    def val(self) -> VQADataset:
        """Validation dataset, whose accuracy chooses the best checkpoint."""
        return self.datasets["val"]

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """Return the description stored in checkpoints: the model, and what the order of the batches depends on."""
        ids = ",".join(str(question.question_id) for question in self.train.questions)
        digest = hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()
        order = {"seed": config.seed, "optim": asdict(config.task.optim), "training questions": digest}
        return card(config, self.encoder) | {"answers": list(self.answers.answers)} | order

    @property
    def content(self) -> dict[str, str]:
        """Hashes of the encoder, the images, the answer list, and each split's questions and answers."""
        found = {
            "encoder weights": self.encoder.fingerprint(),
            "images": self.images.content,
            "answer list": digest(zip(self.answers.answers)),
        }
        for name, part in self.splits.parts.items():
            found[f"{name} questions"] = digest((q.question_id, q.image_id, q.question) for q in part.questions)
            found[f"{name} answers"] = digest(_annotation(question) for question in part.questions)
        return found

    @cached_property
    def familiarity(self) -> dict[str, Any]:
        """The words of the training questions and the statistics of their images, for warnings about others."""
        questions = self.train.questions
        return describe([q.question for q in questions], self.images, [q.image_id for q in questions])

    def write_split(self, path: Path) -> None:
        """Write the question ids of each split to a JSON file."""
        parts = self.splits.parts.items()
        write_json(path, {name: [question.question_id for question in part.questions] for name, part in parts})

    def describe(self) -> None:
        """Print the number of questions and answers."""
        sizes = ", ".join(f"{len(dataset)} {part}" for part, dataset in self.datasets.items())
        print(f"questions: {sizes}; answers: {len(self.answers)}", flush=True)
        if without := self.train.without_target:
            print(f"{without} training questions have no answer in the vocabulary", file=sys.stderr)


def _annotation(question: Question) -> list[object]:
    """Return what a question's score depends on."""
    answers = [answer.get("answer") for answer in question.answers]
    return [question.question_id, answers, question.multiple_choice_answer, question.answer_type]


def prepare(config: TrainConfig) -> TaskData:
    """Read the data and compute the features of all splits, or read them from the cache.

    Raises:
        UserError: The data can't be read.
    """
    splits = load_data(config.data)
    texts = [question.question for part in splits.parts.values() for question in part.questions]
    encoder, device, cache = ready_encoder(config)
    images = image_features(encoder, config.encoder, splits.images, cache, config.data.on_bad_image, device)
    prepared_texts = text_features(encoder, config.encoder, texts, cache, device)
    answers = vocabulary(config.data, splits)
    return TaskData(splits, answers, encoder.cpu(), images, prepared_texts, config.task.sees)


def prepare_split(config: EvaluateConfig, answers: AnswerVocabulary) -> VQADataset:
    """Read the questions of ``config.split`` and compute their features, or read them from the cache.

    Args:
        config: The command's config.
        answers: The answer list of the checkpoint.

    Raises:
        UserError: The data can't be read, has no such split, or ``data.answers_file`` differs from ``answers``.
    """
    if (file := config.data.answers_file) is not None and read_lxmert_labels(Path(file)) != answers:
        raise UserError(
            f"the checkpoint was trained on another answer list than data.answers_file={file}; "
            "give the list it was trained on, or data.answers_file=null"
        )
    part = load_questions_of(config.data, config.split)
    encoder, device, cache = ready_encoder(config)
    images = image_features(encoder, config.encoder, part.sources, cache, config.data.on_bad_image, device)
    texts = text_features(encoder, config.encoder, [question.question for question in part.questions], cache, device)
    return _dataset(config.split, part, images, texts, answers, config.task.sees)


def _dataset(
    name: str, part: VQAData, images: FrozenFeatures, texts: FrozenFeatures, answers: AnswerVocabulary, sees: str
) -> VQADataset:
    dataset = VQADataset(part, images, texts, answers, sees)
    if not len(dataset):
        raise UserError(f"no image of the {name} split could be read; check the image folder in data.root")
    return dataset


@dataclass
class VQABatch:
    """A batch of questions."""

    image: Tokens
    text: Tokens
    targets: Tensor  #: soft scores, 0..1, [B, answers]
    rows: Tensor  #: positions of the questions in their dataset, [B]

    def to(self, device: torch.device) -> VQABatch:
        """Return the batch on a device."""
        targets, rows = (on_device(each, device) for each in (self.targets, self.rows))
        return VQABatch(self.image.to(device), self.text.to(device), targets, rows)

    def pin_memory(self) -> VQABatch:
        """Return the batch in pinned memory, from which a GPU copies it while it computes."""
        targets, rows = (each.pin_memory() for each in (self.targets, self.rows))
        return VQABatch(self.image.pin_memory(), self.text.pin_memory(), targets, rows)


class VQADataset(Dataset[VQABatch]):
    """The questions of a split whose image could be read; indexed by a list of rows, which returns a whole batch.

    Args:
        data: The split's questions.
        images: Frozen features of the images.
        texts: Frozen features of the questions.
        vocabulary: The answers to choose from.
        sees: ``both``; ``question`` gives every question the same image; ``image`` gives every image the same question.
    """

    def __init__(
        self,
        data: VQAData,
        images: FrozenFeatures,
        texts: FrozenFeatures,
        vocabulary: AnswerVocabulary,
        sees: str = "both",
    ):
        self.questions: tuple[Question, ...] = tuple(q for q in data.questions if q.image_id not in images.missing)
        self.left_out: tuple[Question, ...] = tuple(q for q in data.questions if q.image_id in images.missing)
        if self.left_out:
            print(f"{len(self.left_out)} questions are left out: their images could not be read", file=sys.stderr)
        self._images, self._texts = images.store, texts.store
        self._image_places = np.array([images.place[q.image_id] for q in self.questions], np.int64)
        self._text_places = np.array([texts.place[q.question] for q in self.questions], np.int64)
        if sees == "question":
            self._image_places[:] = self._image_places.min()
        if sees == "image":
            self._text_places[:] = 0
        self._targets = [soft_targets(q, vocabulary) for q in self.questions]
        self._answers = len(vocabulary)

    @property
    def without_target(self) -> int:
        """Number of questions with no human answer in the vocabulary; all their targets are 0."""
        return sum(not targets for targets in self._targets)

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, rows: list[int]) -> VQABatch:
        places = np.asarray(rows, np.int64)
        targets = torch.zeros(len(rows), self._answers)
        for k, row in enumerate(rows):
            for answer, score in self._targets[row].items():
                targets[k, answer] = score
        image = self._images.gather(self._image_places[places])
        text = self._texts.gather(self._text_places[places])
        return VQABatch(image, text, targets, torch.from_numpy(places))


_SOFT_SCORES = {1: 0.3, 2: 0.6, 3: 0.9}  # by the number of annotators who gave the answer; 1.0 for four or more


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


def build_vocabulary(questions: Iterable[Question], min_questions: int = 9) -> AnswerVocabulary:
    """Build the answer vocabulary from the annotated questions.

    It contains each preprocessed ``multiple_choice_answer`` that at least ``min_questions`` different questions have,
    the most frequent first. Equally frequent answers are in alphabetical order, so the order of the questions doesn't
    matter. With the default of 9, VQAv2's train and val splits give 3129 answers.

    Raises:
        UserError: No answer is frequent enough.
    """
    asked_by: defaultdict[str, set[int]] = defaultdict(set)
    for question in questions:
        if question.answers or question.multiple_choice_answer:
            asked_by[preprocess_answer(question.multiple_choice_answer)].add(question.question_id)
    counts = {answer: len(ids) for answer, ids in asked_by.items() if len(ids) >= min_questions}
    if not counts:
        raise UserError(
            f"no answer is the multiple_choice_answer of {min_questions} or more annotated questions; "
            "lower data.min_answer_questions, or give data.answers_file"
        )
    return AnswerVocabulary(tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))))


def soft_targets(question: Question, vocabulary: AnswerVocabulary) -> dict[int, float]:
    """Return the target scores (0..1) of a question by class; all other classes have target 0.

    The human answers are counted and looked up without preprocessing, as bottom-up-attention-vqa's
    ``compute_softscore.py`` does.
    """
    counts = Counter(answer["answer"] for answer in question.answers)
    places = {vocabulary.index(str(answer)): count for answer, count in counts.items()}
    return {place: _SOFT_SCORES.get(count, 1.0) for place, count in places.items() if place is not None}


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
    return build_vocabulary((*splits.train.questions, *splits.val.questions), config.min_answer_questions)
