"""Predicted answers for a dataset, and their official VQA accuracy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clipmapper.choice import describe, find_checkpoint
from clipmapper.config.schema import EvaluateConfig
from clipmapper.console import progress
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import WordCount
from clipmapper.files import ANSWERS, read_json, write_json, write_metrics, write_results
from clipmapper.metrics.vqa import VQAScore, print_score, score_predictions, summary
from clipmapper.process import together
from clipmapper.process.together import mine, shared_out
from clipmapper.tasks.submission import Submission
from clipmapper.tasks.vqa.answers import AnswerVocabulary
from clipmapper.tasks.vqa.data import TaskData, VQADataset, prepare_split
from clipmapper.tasks.vqa.model import VQAMapper, load_vqa
from clipmapper.training.batches import in_order
from clipmapper.training.identity import digest_of_file
from clipmapper.training.trainer import connect


@torch.inference_mode()
def predict(model: VQAMapper, dataset: VQADataset, batch_size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predicted class of every question and its probability (the sigmoid of its logit), [n] each.

    The processes of a distributed run share the batches out, and all get all answers.

    Raises:
        UserError: A logit is NaN.
    """
    device = next(model.parameters()).device
    model.eval()
    batches = in_order(len(dataset), batch_size)
    with progress(sum(map(len, mine(batches))), "answering", "questions") as advance:

        def answered(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            batch = dataset[rows].to(device)
            best = model(batch.image, batch.text).max(1)
            if best.values.isnan().any():
                raise UserError("the model's outputs are no numbers (NaN): its weights or the features are damaged")
            advance(len(rows))
            return best.indices.cpu(), best.values.sigmoid().cpu()

        answers, probabilities = zip(*shared_out(batches, answered), strict=True)
    return torch.cat(answers), torch.cat(probabilities)


def evaluate(
    model: VQAMapper, dataset: VQADataset, answers: tuple[str, ...], folder: Path, name: str
) -> VQAScore | None:
    """Write the model's answers to a dataset, and return their score.

    ``predictions_{name}.json`` has the question, predicted answer, probability and accuracy of every question.
    ``submission_{name}.json`` is the list ``[{question_id, answer}]`` for the official evaluation server. The server
    requires every question, so questions whose image could not be read have an empty answer there.

    Args:
        model: The trained part.
        dataset: The questions.
        answers: Answer of each class.
        folder: Folder of the two files.
        name: Part of the files' names.

    Returns:
        The score; None if the questions have no human answers, and in all processes but the first, which writes.
    """
    indices, probabilities = predict(model, dataset)
    if together.rank() > 0:
        return None
    given = {q.question_id: answers[i] for q, i in zip(dataset.questions, indices.tolist(), strict=True)}
    score = score_predictions(given, dataset.questions) if dataset.questions[0].answers else None
    rows: list[dict[str, Any]] = [
        {"question_id": q.question_id, "image_id": q.image_id, "question": q.question, "answer": given[q.question_id]}
        | {"probability": round(p, 6)}
        | ({} if score is None else {"accuracy": score.per_question[q.question_id]})
        for q, p in zip(dataset.questions, probabilities.tolist(), strict=True)
    ]
    write_json(folder / f"predictions_{name}.json", rows)
    submitted = given | {q.question_id: "" for q in dataset.left_out}
    write_results(folder / f"submission_{name}.json", ANSWERS, submitted)
    return score


def evaluate_splits(model: VQAMapper, data: TaskData, name: str, run: Path) -> dict[str, Any]:
    """Write the model's answers to validation and test, then print and return their scores."""
    metrics: dict[str, Any] = {}
    for part in ("val", "test"):
        if part not in data.datasets:
            continue
        if score := evaluate(model, data.datasets[part], data.answers.answers, run, part):
            metrics[part] = summary(score)
            print_score(f"{name} {part}", score)
    return metrics


def examples(data: TaskData, run: Path, count: int) -> list[tuple[ImageSource, str]]:
    """Return some images of the last split with a question, the model's answer and its probability."""
    part = list(data.datasets)[-1]
    rows, images = read_json(run / f"predictions_{part}.json"), data.splits.part(part).images
    chosen = rows[:: -(-len(rows) // count)]  # neighbouring questions are about the same image
    return [
        (images[row["image_id"]], f"{row['question']} {row['answer']} ({row['probability']:.3f})") for row in chosen
    ]


def score_checkpoint(config: EvaluateConfig, run: Path) -> dict[str, Any]:
    """Write a checkpoint's answers to a split; print and return their official accuracy, if there are human answers."""
    submission = Submission.planned(config)
    device = connect(config.trainer)
    checkpoint = find_checkpoint(config, config.checkpoint)
    print(f"checkpoint: {describe(checkpoint)}", flush=True)
    together.check_agreed(lambda: {"weights": digest_of_file(checkpoint)})
    model = load_vqa(checkpoint, config).to(device)
    dataset = prepare_split(config, AnswerVocabulary(model.answers))
    words = WordCount.of(model.familiarity, [question.question for question in dataset.questions])
    if words is not None:
        print(words, flush=True)
    score = evaluate(model.trained, dataset, model.answers, run, config.split)
    if together.rank() > 0:
        return {}
    if submission is not None:
        submission.write(run / f"submission_{config.split}.json", ANSWERS)
    if score is None:
        print(f"{config.data.name} {config.split} has no human answers: wrote the predictions only")
        return {}
    about = {"checkpoint": str(checkpoint), "question_words": None if words is None else words.entry()}
    scores = {config.split: summary(score)}
    write_metrics(run / "metrics.json", scores | about, asdict(config))
    print_score(f"{config.data.name} {config.split}", score)
    return scores
