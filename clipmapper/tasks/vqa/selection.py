"""What is to be explained: which samples, and which of the model's answers."""

from __future__ import annotations

from pathlib import Path

from clipmapper.console import progress
from clipmapper.data.images import FileImage
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.explaining.selection import drawn_order, rows_of_ids
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.trained import Subject, load_model


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


def _wrong(subject: Subject, config: ExplainConfig, order: list[int]) -> list[int]:
    """The first rows whose predicted answer has no accuracy at all; how many were looked at is printed."""
    if not subject.questions[0].answers:
        raise UserError(f"select=wrong: the {config.split} split has no human answers; give select=random")
    found: list[int] = []
    looked = 0
    with progress(config.samples, "looking for wrong answers", "found") as advance:
        for row, question, answer in subject.answered(order, config.batch_size):
            looked += 1
            if vqa_accuracy(answer, question.answers) == 0:
                found.append(row)
                advance()
            if len(found) == config.samples:
                break
    if not found:
        raise UserError(f"select=wrong: none of {looked} answers is wrong; give select=random")
    print(f"{len(found)} wrong answers among the {looked} looked at", flush=True)
    return found
