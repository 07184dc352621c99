"""What training and evaluation both start from: the data, the frozen encoder and its features."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clipmapper.checkpoint import card
from clipmapper.config.schema import Config, TrainConfig
from clipmapper.data.datasets import Questions, load_data
from clipmapper.data.records import Question, VQAData
from clipmapper.encoder.features import FrozenFeatures, image_features, ready_encoder, text_features
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.files import write_json
from clipmapper.nn.tokens import Tokens
from clipmapper.tasks.vqa.answers import AnswerVocabulary, soft_targets, vocabulary


@dataclass(frozen=True)
class TaskData:
    """Questions with their answers and their frozen features."""

    splits: Questions
    answers: AnswerVocabulary
    encoder: FrozenClip
    images: FrozenFeatures
    texts: FrozenFeatures
    sees: str

    def dataset(self, part: str) -> VQADataset:
        """Raises ``UserError`` where the data has no such part, or no picture of it could be read."""
        dataset = VQADataset(self.splits.part(part), self.images, self.texts, self.answers, self.sees)
        if not len(dataset):
            raise UserError(f"no image of the {part} split could be read; check the image folder in data.root")
        return dataset

    @cached_property
    def datasets(self) -> dict[str, VQADataset]:
        """Those of all parts; raises as :meth:`dataset`."""
        return {part: self.dataset(part) for part in self.splits.parts}

    @property
    def train(self) -> VQADataset:
        """What is trained on."""
        return self.datasets["train"]

    @property
    def val(self) -> VQADataset:
        """What chooses the best checkpoint."""
        return self.datasets["val"]

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """What a checkpoint says of itself: the model, and what the order of the batches follows from."""
        ids = ",".join(str(question.question_id) for question in self.train.questions)
        digest = hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()
        order = {"seed": config.seed, "optim": asdict(config.task.optim), "training questions": digest}
        return card(config, self.encoder) | {"answers": list(self.answers.answers)} | order

    def write_split(self, path: Path) -> None:
        """Notes the question ids of each part."""
        parts = self.splits.parts.items()
        write_json(path, {name: [question.question_id for question in part.questions] for name, part in parts})

    def describe(self) -> None:
        """Prints how many questions and answers there are."""
        sizes = ", ".join(f"{len(dataset)} {part}" for part, dataset in self.datasets.items())
        print(f"questions: {sizes}; answers: {len(self.answers)}", flush=True)
        if without := self.train.without_target:
            print(f"{without} training questions have no answer in the vocabulary", file=sys.stderr)


def prepare(config: Config, answers: AnswerVocabulary | None = None) -> TaskData:
    """Reads the data and computes its features, or finds them in the cache.

    ``answers`` is a checkpoint's list; without one, the data's own is built. Raises ``UserError`` as the readers do,
    and where the config names an answer file that holds another list than the checkpoint.
    """
    splits = load_data(config.data)
    if answers and config.data.answers_file and vocabulary(config.data, splits) != answers:
        raise UserError(
            f"the checkpoint was trained on another answer list than data.answers_file={config.data.answers_file}; "
            "give its own list, or none"
        )
    texts = [question.question for part in splits.parts.values() for question in part.questions]
    encoder, device, cache = ready_encoder(config)
    images = image_features(encoder, config.encoder, splits.images, cache, config.data.on_bad_image, device)
    prepared_texts = text_features(encoder, config.encoder, texts, cache, device)
    answers = answers or vocabulary(config.data, splits)
    return TaskData(splits, answers, encoder.cpu(), images, prepared_texts, config.task.sees)


@dataclass
class VQABatch:
    """``targets`` [B, answers] soft scores; ``rows`` [B] the questions' places in their data set."""

    image: Tokens
    text: Tokens
    targets: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> VQABatch:
        return VQABatch(self.image.to(device), self.text.to(device), self.targets.to(device), self.rows.to(device))


class VQADataset(Dataset[VQABatch]):
    """The questions whose picture could be read; fetched a whole batch at a time."""

    def __init__(
        self,
        data: VQAData,
        images: FrozenFeatures,
        texts: FrozenFeatures,
        vocabulary: AnswerVocabulary,
        sees: str = "both",
    ):
        """``sees="question"`` shows every question with one and the same picture, ``"image"`` the reverse."""
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
        """Questions none of whose answers is in the vocabulary; they train towards no answer."""
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
