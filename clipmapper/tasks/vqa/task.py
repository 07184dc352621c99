"""VQA as training sees it: its data, its Lightning module, what a resumed run must share, and its evaluation."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from clipmapper.checkpoint import card
from clipmapper.config.schema import TrainConfig
from clipmapper.files import write_json
from clipmapper.mapper.initialisation import take_turns
from clipmapper.mapper.single_stream import SingleStream
from clipmapper.metrics.vqa import summary, table
from clipmapper.tasks.vqa.data import VQADataset, prepare
from clipmapper.tasks.vqa.evaluation import evaluate
from clipmapper.tasks.vqa.model import build_vqa
from clipmapper.tasks.vqa.training import VQATraining

_SOME = 512  # training questions, whose tokens' means mapper A begins with


class VQATask:
    """Reads the data and computes its features; raises ``UserError`` as :func:`clipmapper.tasks.vqa.data.prepare`."""

    monitor: ClassVar[str] = "val/accuracy"  # the greatest chooses the best checkpoint

    def __init__(self, config: TrainConfig):
        self._config = config
        self._prepared = prepare(config)
        self._datasets = {part: self._prepared.dataset(part) for part in self._prepared.splits.parts}
        self._describe()

    @property
    def train(self) -> VQADataset:
        return self._datasets["train"]

    @property
    def val(self) -> VQADataset:
        return self._datasets["val"]

    def write_split(self, path: Path) -> None:
        """Notes the question ids of each part."""
        parts = self._prepared.splits.parts.items()
        write_json(path, {name: [question.question_id for question in part.questions] for name, part in parts})

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a checkpoint says of itself: the model, and what the order of the batches follows from."""
        ids = ",".join(str(question.question_id) for question in self.train.questions)
        digest = hashlib.blake2b(ids.encode(), digest_size=16).hexdigest()
        order = {"seed": self._config.seed, "optim": asdict(self._config.task.optim), "training questions": digest}
        return card(self._config, self._prepared.encoder, self._prepared.answers) | order

    @cached_property
    def module(self) -> VQATraining:
        """A new model, ready to be trained; the first look at it draws its weights from torch's generator."""
        config = self._config
        model = build_vqa(config.mapper, self._prepared.encoder, len(self._prepared.answers))
        if isinstance(model.mapper, SingleStream) and config.mapper.start == "aligned":
            some = self.train[list(range(min(_SOME, len(self.train))))]
            take_turns(model.mapper, some.image, some.text)
        return VQATraining(model, config.task.optim, config.trainer.max_steps, self.about, config.seed)

    def evaluate(self, run: Path) -> dict[str, Any]:
        """Writes what the model answers in validation and test, prints and returns how right that is."""
        metrics: dict[str, Any] = {}
        answers = self._prepared.answers.answers
        for part in ("val", "test"):
            if part not in self._datasets:
                continue
            if score := evaluate(self.module.model, self._datasets[part], answers, run, part):
                metrics[part] = summary(score)
                print(table(f"{self._config.data.name} {part}", score), flush=True)
        return metrics

    def _describe(self) -> None:
        sizes = ", ".join(f"{len(dataset)} {part}" for part, dataset in self._datasets.items())
        print(f"questions: {sizes}; answers: {len(self._prepared.answers)}", flush=True)
        if without := self.train.without_target:
            print(f"{without} training questions have no answer in the vocabulary", file=sys.stderr)
