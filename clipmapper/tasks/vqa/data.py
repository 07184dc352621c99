"""VQA's data: questions with their frozen features and soft targets."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipmapper.checkpoint import card
from clipmapper.config.schema import EvaluateConfig, TrainConfig
from clipmapper.data.datasets import Questions, load_data, load_questions_of
from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import VQAData
from clipmapper.encoder.load import FrozenClip, check_encoder
from clipmapper.encoder.released import release
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import describe
from clipmapper.features.folders import ready_encoder
from clipmapper.features.images import image_features
from clipmapper.features.store import FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.files import write_json
from clipmapper.nn import Tokens, on_device
from clipmapper.process.together import check_agreed
from clipmapper.tasks.vqa.answers import AnswerVocabulary, SoftTargets, read_lxmert_labels, vocabulary
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
        ids = ",".join(map(str, self.train.questions.ids.tolist()))
        digest = hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()
        order = {"seed": config.seed, "optim": asdict(config.task.optim), "training questions": digest}
        return card(config, self.encoder) | {"answers": list(self.answers.answers)} | order

    @property
    def content(self) -> dict[str, str]:
        """Hashes of the encoder, the images, the answer list, and each split's questions and answers."""
        return {
            "encoder weights": self.encoder.fingerprint(),
            "images": self.images.content,
            "answer list": digest(zip(self.answers.answers)),
            **_content(self.splits),
        }

    @cached_property
    def familiarity(self) -> dict[str, Any]:
        """The words of the training questions and the statistics of their images, for warnings about others."""
        questions = self.train.questions
        texts, ids = questions.texts("question")[1], questions.image_ids.tolist()
        return describe(texts, self.images, ids, self.encoder.vision.first)

    def write_split(self, path: Path) -> None:
        """Write the question ids of each split to a JSON file."""
        parts = self.splits.parts.items()
        write_json(path, {name: QuestionTable.of(part.questions).ids.tolist() for name, part in parts})

    def describe(self) -> None:
        """Print the number of questions and answers."""
        sizes = ", ".join(f"{len(dataset)} {part}" for part, dataset in self.datasets.items())
        print(f"questions: {sizes}; answers: {len(self.answers)}", flush=True)
        if without := self.train.without_target:
            print(f"{without} training questions have no answer in the vocabulary", file=sys.stderr)


_SCORED = ("answers", "multiple_choice_answer", "answer_type")  # what a question's score depends on, beside its id


def _content(splits: Questions) -> dict[str, str]:
    """Return hashes of each split's questions and answers."""
    found = {}
    for name, part in splits.parts.items():
        asked = QuestionTable.of(part.questions)
        found[f"{name} questions"] = asked.digest("question_id", "image_id", "question")
        found[f"{name} answers"] = asked.digest("question_id", *_SCORED)
    return found


def prepare(config: TrainConfig) -> TaskData:
    """Read the data and compute the features of all splits, or read them from the cache.

    Raises:
        UserError: The data can't be read, or there is no such encoder.
    """
    check_encoder(config.encoder)
    splits = load_data(config.data, Path(config.paths.cache))
    texts = [text for part in splits.parts.values() for text in QuestionTable.of(part.questions).texts("question")[1]]
    encoder, device, cache = ready_encoder(config)
    check_agreed(lambda: {"encoder weights": encoder.fingerprint(), **_content(splits)})
    images = image_features(encoder, config.encoder, splits.images, cache, config.data.on_bad_image, device)
    prepared_texts = text_features(encoder, config.encoder, texts, cache, device)
    answers = vocabulary(config.data, splits)
    release(encoder.cpu())
    pyarrow.default_memory_pool().release_unused()
    return TaskData(splits, answers, encoder, images, prepared_texts, config.task.sees)


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
    part = load_questions_of(config.data, config.split, Path(config.paths.cache))
    encoder, device, cache = ready_encoder(config)
    asked = QuestionTable.of(part.questions)
    columns = ("question_id", "image_id", "question")
    check_agreed(lambda: {"encoder weights": encoder.fingerprint(), "questions": asked.digest(*columns)})
    images = image_features(encoder, config.encoder, part.sources, cache, config.data.on_bad_image, device)
    check_agreed(lambda: {"images": images.content})
    texts = text_features(encoder, config.encoder, asked.texts("question")[1], cache, device)
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
        questions = QuestionTable.of(data.questions)
        missing = np.isin(questions.image_ids, list(images.missing))
        self.questions, self.left_out = (
            questions.take(np.flatnonzero(~missing)),
            questions.take(np.flatnonzero(missing)),
        )
        if len(self.left_out):
            print(f"{len(self.left_out)} questions are left out: their images could not be read", file=sys.stderr)
        self._images, self._texts = images.store, texts.store
        ids, of_image = np.unique(self.questions.image_ids, return_inverse=True)
        self._image_places = np.array([images.place[image_id] for image_id in ids.tolist()], np.int64)[of_image]
        of_text, distinct = self.questions.texts("question")
        self._text_places = np.array([texts.place[text] for text in distinct], np.int64)[of_text]
        if sees == "question":
            self._image_places[:] = self._image_places.min()
        if sees == "image":
            self._text_places[:] = 0
        self._targets = SoftTargets(self.questions, vocabulary)

    @property
    def without_target(self) -> int:
        """Number of questions with no human answer in the vocabulary; all their targets are 0."""
        return int((np.diff(self._targets.starts) == 0).sum())

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, rows: list[int]) -> VQABatch:
        places = np.asarray(rows, np.int64)
        image = self._images.gather(self._image_places[places])
        text = self._texts.gather(self._text_places[places])
        return VQABatch(image, text, self._targets.rows(places), torch.from_numpy(places))
