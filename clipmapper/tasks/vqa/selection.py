"""Selection of the questions to explain, or the user's own question."""

from __future__ import annotations

from pathlib import Path

from clipmapper.console import progress
from clipmapper.data.images import FileImage
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.explaining.selection import drawn_rows, rows_of_ids
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.trained import TrainedVQA, load_model


def own_question(config: ExplainConfig) -> TrainedVQA:
    """Load the model with the user's image and question, as question 0 about image 0; no dataset is read.

    Raises:
        UserError: There is no checkpoint that fits the config.
    """
    model, path = load_model(config, config.checkpoint)
    question = Question(question_id=0, image_id=0, question=str(config.question))
    return TrainedVQA(model, (question,), {0: FileImage(Path(str(config.image)))}, path, "fail")


def select(trained: TrainedVQA, config: ExplainConfig) -> list[int]:
    """Return the rows of the questions that the config chooses, in the order of their figures.

    ``random`` and ``wrong`` take the first questions of a seeded order. So with the same seed, a smaller number of
    samples gives the first ones of a larger number.

    Raises:
        UserError: An id is unknown, there are fewer questions than requested, or no wrong answer is found.
    """
    if config.image is not None:
        return [0]
    if config.select == "ids":
        return rows_of_ids([question.question_id for question in trained.questions], config, "question")
    order = drawn_rows(len(trained.questions), config, "questions")
    return order[: config.samples] if config.select == "random" else _wrongly_answered(trained, config, order)


def _wrongly_answered(trained: TrainedVQA, config: ExplainConfig, order: list[int]) -> list[int]:
    """Return the first rows whose predicted answer has accuracy 0; print how many questions were answered for that."""
    if not trained.questions[0].answers:
        raise UserError(f"select=wrong: the {config.split} split has no human answers; give select=random")
    found: list[int] = []
    looked = 0
    with progress(config.samples, "looking for wrong answers", "wrong answers") as advance:
        for row, question, answer in trained.answered(order, config.at_once):
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
