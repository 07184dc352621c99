"""What is to be explained: which samples, and which of the model's answers."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from clipmapper.data.images import FileImage
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.explain_config import ExplainConfig, PictureConfig
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.subject import QuestionBatch, Subject, load_model
from clipmapper.vqa_model import CLIPMapperVQA
from explain.targets import Target, given, margin, predicted


@dataclass(frozen=True)
class Aim:
    """Which logit is explained: that of ``answer``, None for the predicted one; less that of ``against``."""

    answer: int | None = None
    against: int | None = None

    @classmethod
    def of(cls, config: ExplainConfig, answers: tuple[str, ...]) -> Aim:
        """Raises ``UserError`` for an answer that the model does not know."""
        return cls(_place(answers, "answer", config.answer), _place(answers, "against", config.against))

    def target(self, model: CLIPMapperVQA, batch: QuestionBatch) -> Target:
        """The same answers in every pass; where the predicted one is ``against`` itself, y is 0."""
        if self.against is None:
            return predicted if self.answer is None else given(self.answer)
        if self.answer is not None:
            return margin(self.answer, self.against)
        with torch.no_grad():
            answers = model(batch.pixels, batch.text).argmax(1)
        for row in (answers == self.against).nonzero()[:, 0].tolist():
            what = f"question {batch.ids[row]}: the answer is {model.answers[self.against]} itself"
            print(f"{what}, so against={model.answers[self.against]} leaves nothing to explain", file=sys.stderr)
        return margin(answers, self.against)


def own_subject(config: ExplainConfig) -> Subject:
    """The config's picture and question as question 0 of picture 0; no data are read.

    Raises ``UserError`` where there is no checkpoint.
    """
    model, path = load_model(config, config.checkpoint)
    question = Question(question_id=0, image_id=0, question=str(config.question))
    return Subject(model, (question,), {0: FileImage(Path(str(config.image)))}, path, "fail")


def choose(subject: Subject, config: ExplainConfig) -> list[int]:
    """The rows of the samples that the config names, in the order of their pictures.

    ``random`` and ``wrong`` follow a seeded order: fewer samples are the first of more.

    Raises ``UserError`` for unknown ids, for more samples than there are, and where no wrong answer is found.
    """
    if config.image is not None:
        return [0]
    if config.select == "ids":
        return rows_of_ids([question.question_id for question in subject.questions], config, "question")
    order = drawn_order(len(subject.questions), config, "questions")
    return order[: config.samples] if config.select == "random" else _wrong(subject, config, order)


def rows_of_ids(known: Sequence[int], config: PictureConfig, what: str) -> list[int]:
    """Where the ids that the config names stand among the known; raises ``UserError`` for unknown ones."""
    row_of = {each: row for row, each in enumerate(known)}
    wanted = list(dict.fromkeys(config.ids))
    if unknown := [str(i) for i in wanted if i not in row_of]:
        first = ", ".join(map(str, known[:3]))
        raise UserError(f"ids: the {config.split} split has no {what} {', '.join(unknown)}; it has {first}, …")
    return [row_of[i] for i in wanted]


def drawn_order(total: int, config: PictureConfig, what: str) -> list[int]:
    """All rows in an order that the seed draws; raises ``UserError`` where the config asks for more samples."""
    if config.samples > total:
        raise UserError(f"samples={config.samples}: the {config.split} split has {total} {what}; give fewer")
    return np.random.default_rng(config.seed).permutation(total).tolist()


def _wrong(subject: Subject, config: ExplainConfig, order: list[int]) -> list[int]:
    """The first rows whose predicted answer has no accuracy at all; how many were looked at is printed."""
    if not subject.questions[0].answers:
        raise UserError(f"select=wrong: the {config.split} split has no human answers; give select=random")
    found: list[int] = []
    looked, hidden = 0, not config.trainer.enable_progress_bar
    with tqdm(total=config.samples, desc="looking for wrong answers", leave=False, disable=hidden) as bar:
        for row, question, answer in subject.answered(order, config.encoder.batch_size):
            looked += 1
            if vqa_accuracy(answer, question.answers) == 0:
                found.append(row)
                bar.update()
            if len(found) == config.samples:
                break
    if not found:
        raise UserError(f"select=wrong: none of {looked} answers is wrong; give select=random")
    print(f"{len(found)} wrong answers among the {looked} looked at", flush=True)
    return found


def _place(answers: tuple[str, ...], key: str, answer: str | None) -> int | None:
    if answer is None or answer in answers:
        return None if answer is None else answers.index(answer)
    close = difflib.get_close_matches(answer.lower(), answers, n=3)
    hint = f"close to it: {', '.join(close)}" if close else f"it knows {', '.join(answers[:5])}, …"
    raise UserError(f"{key}={answer} is none of the model's {len(answers)} answers; {hint}")
