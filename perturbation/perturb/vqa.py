"""The tests of answers: the questions, the fastest batch of the engine, and the records of each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import Subject, load_subject
from perturbation.config import PerturbConfig
from perturbation.perturb.identity import CHOSEN, digest
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import Entrant, Examiner
from perturbation.perturb.samples import deal, draw, split_of
from perturbation.removal.batch_size import fastest
from perturbation.removal.engine import Engine, Removal


@dataclass(frozen=True, eq=False)
class QuestionTests:
    """Implements ``perturbation.perturb.lightning.Tests``; ``batches`` are rows of the subject's questions."""

    subject: Subject
    batches: Sequence[Sequence[int]]
    entrants: Sequence[Entrant]
    config: PerturbConfig
    steps: Sequence[float]

    @property
    def model(self) -> CLIPMapperVQA:
        return self.subject.model

    @property
    def checkpoint(self) -> Path:
        return self.subject.checkpoint

    @property
    def samples(self) -> Mapping[str, str]:
        return {"questions": digest(_content(question) for question in self._questions)}

    @property
    def about(self) -> str:
        return f"{len(self._questions)} of {len(self.subject.questions)} questions"

    @property
    def _questions(self) -> list[Question]:
        return [self.subject.questions[row] for rows in self.batches for row in rows]

    def prepare(self, run: Path) -> int:
        """The engine's batch size: of the config, of the run that goes on, or the fastest here."""
        if self.config.engine_batch is not None:
            return self.config.engine_batch
        chosen = run / CHOSEN
        if not chosen.is_file():
            first = self.subject.batch(self.batches[0])
            write_json(chosen, {"engine_batch": 32 if first is None else fastest(self.model, first)})
        return int(read_json(chosen)["engine_batch"])

    def examine(self, number: int, prepared: int) -> Tables:
        """The records of a batch; none where no picture of it could be read."""
        batch = self.subject.batch(self.batches[number])
        if batch is None:
            return {}
        removal = Removal(self.config.removal.image, self.config.removal.text)  # type: ignore[arg-type]
        examiner = Examiner(self.model, Engine(self.model, prepared, removal), self.entrants, self.config, self.steps)
        before = sum(map(len, self.batches[:number]))
        return examiner.examine(batch, max(0, self.config.ceiling.samples - before))


def question_tests(config: PerturbConfig, entrants: Sequence[Entrant], steps: Sequence[float]) -> QuestionTests:
    """The tests of the questions that are drawn; raises ``UserError`` as ``load_subject``, ``draw`` and where a
    question has no human answers."""
    split = split_of(config)
    subject = load_subject(config, split, config.checkpoint)
    rows = draw(len(subject.questions), config.samples, config.seed, "questions")
    without = [subject.questions[row].question_id for row in rows if not subject.questions[row].answers]
    if without:
        raise UserError(
            f"split={split}: question {without[0]} has no human answers to be judged by; choose a split that has them"
        )
    return QuestionTests(subject, deal(rows, config.batch_samples), entrants, config, steps)


def _content(question: Question) -> list[object]:
    answers = [answer.get("answer") for answer in question.answers]
    return [question.question_id, question.image_id, question.question, answers]
