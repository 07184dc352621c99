"""One explained question: all numbers behind its figures, and the rows of the file that stores them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clipmapper.data.records import Question
from clipmapper.encoder.pieces import spelled
from clipmapper.tasks.vqa.explaining import AnswerTarget, Explained, explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from explain import Explainer, Needs, mutual_interaction
from explain.explainers import Weighted

Array = NDArray[np.float32]
# The file has one row per explainer and token. ``answer`` is the predicted answer and ``probability`` its probability;
# the logit of ``target`` (minus that of ``against``) is explained. ``index`` is the token's position in its modality.
# Patches have ``row`` and ``col``, all other tokens have ``token``. ``special`` is true for the class, register,
# read-out, start, end and padding tokens.
SCHEMA = pa.schema(
    {
        "question_id": pa.int64(),
        "image_id": pa.int64(),
        "question": pa.string(),
        "answer": pa.string(),
        "probability": pa.float32(),
        "target": pa.string(),
        "against": pa.string(),
        "explainer": pa.string(),
        "modality": pa.string(),
        "index": pa.int32(),
        "token": pa.string(),
        "row": pa.int32(),
        "col": pa.int32(),
        "special": pa.bool_(),
        "score": pa.float32(),
    }
)


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer and its probability, the sigmoid of its logit."""

    answer: str
    probability: float


@dataclass(frozen=True, eq=False)
class ExplainedSample:
    """A question, the model's answer and its explanations."""

    question: Question
    photo: Image.Image
    answer: ScoredAnswer  #: the predicted answer
    runner_up: ScoredAnswer | None  #: the second most probable answer; None if the model has only one
    target: ScoredAnswer  #: the explained answer
    against: ScoredAnswer | None  #: the answer whose logit is subtracted
    pieces: Sequence[str]  #: text tokens as the tokenizer spells them, [n]: start token, sub-words, end token, padding
    words: slice  #: positions of the question's sub-words among them
    before: Sequence[str]  #: names of the image tokens before the patches
    grid: tuple[int, int]  #: rows and columns of the patches
    #: Scores by explainer, [n_v]: of the tokens before the patches, and of the patches.
    image: Mapping[str, Array]
    text: Mapping[str, Array]  #: scores of the pieces by explainer, [n]
    modalities: Mapping[str, Collection[str]]  #: the modalities that each explainer scores; the scores of others are 0
    interaction: Array  #: mutual interaction (Huang et al. 2023, Eq. 19), [n, n_v]

    @property
    def patches(self) -> slice:
        """Positions of the patches among the image tokens."""
        rows, cols = self.grid
        total = len(next(iter(self.image.values())))
        return slice(total - rows * cols, total)


def explain_samples(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    aim: AnswerTarget,
    checkpoint: Path | None = None,
) -> Iterator[ExplainedSample]:
    """Explain the questions of a batch by all explainers, from a single trace.

    Args:
        model: The model in evaluation mode.
        batch: The questions.
        explainers: Explainers by name.
        aim: The logit that is explained.
        checkpoint: The model's file, which the error message names; None names the questions instead.

    Raises:
        UserError: The model yields NaN or Inf.
    """
    weighted = Weighted()  # the update rule of R in the interaction
    target = aim.target(model, batch)
    explained = explain(model, batch, explainers, target, more=Needs.of([weighted]), checkpoint=checkpoint)
    matrix = mutual_interaction(explained.traced.trace, "text", "image", weighted)
    for row in range(len(batch.questions)):
        yield _sample(model, batch, explainers, explained, aim, row, matrix[row])


def _sample(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    explained: Explained,
    aim: AnswerTarget,
    row: int,
    matrix: Tensor,
) -> ExplainedSample:
    traced = explained.traced
    image, text = traced.trace.span("image"), traced.trace.span("text")
    ids = batch.text.ids[row][batch.text.valid[row]].tolist()
    words = model.encoder.sub_words(batch.text)[row].nonzero()[:, 0].tolist()
    scores = {name: of_batch[row].float().cpu().numpy() for name, of_batch in explained.scores.items()}
    probabilities = traced.logits[row].sigmoid()

    def scored(answer: int) -> ScoredAnswer:
        return ScoredAnswer(model.answers[answer], float(probabilities[answer]))

    predicted = int(traced.answers[row])
    ranked = traced.logits[row].argsort(descending=True, stable=True).tolist()
    return ExplainedSample(
        question=batch.questions[row],
        photo=batch.images[row],
        answer=scored(predicted),
        runner_up=scored(ranked[1]) if len(ranked) > 1 else None,
        target=scored(predicted if aim.answer is None else aim.answer),
        against=None if aim.against is None else scored(aim.against),
        pieces=spelled(ids, model.encoder.tokenizer),
        words=slice(words[0], words[-1] + 1) if words else slice(1, 1),
        before=_names_before(model),
        grid=model.encoder.vision.grid_size,
        image={name: of_sample[image] for name, of_sample in scores.items()},
        text={name: of_sample[text][: len(ids)] for name, of_sample in scores.items()},
        modalities={name: each.modalities for name, each in explainers.items()},
        interaction=matrix[: len(ids)].float().cpu().numpy(),
    )


def _names_before(model: CLIPMapperVQA) -> list[str]:
    """Return the names of the image tokens before the patches."""
    first = model.encoder.vision.first
    names = ["class", *["register"] * (first - 1)] if first else []
    return ["read-out", *names] if model.trained.mapper.read.learnt is not None else names


def score_rows(sample: ExplainedSample) -> Iterator[dict[str, Any]]:
    """Yield a sample's rows of the file, as ``SCHEMA`` describes them."""
    about = {
        "question_id": sample.question.question_id,
        "image_id": sample.question.image_id,
        "question": sample.question.question,
        "answer": sample.answer.answer,
        "probability": sample.answer.probability,
        "target": sample.target.answer,
        "against": sample.against.answer if sample.against else None,
    }
    for explainer in sample.image:
        tokens = zip(_tokens(sample), (*sample.image[explainer], *sample.text[explainer]), strict=True)
        for token, score in tokens:
            if token["modality"] in sample.modalities[explainer]:
                yield {**about, "explainer": explainer, **token, "score": float(score)}


def _tokens(sample: ExplainedSample) -> Iterator[dict[str, Any]]:
    """Yield the columns that describe each token, in joint order."""
    first, cols = sample.patches.start, sample.grid[1]
    for index, name in enumerate(sample.before):
        yield {"modality": "image", "index": index, "token": name, "special": True}
    for patch, index in enumerate(range(first, sample.patches.stop)):
        row, col = divmod(patch, cols)
        yield {"modality": "image", "index": index, "row": row, "col": col, "special": False}
    words = range(len(sample.pieces))[sample.words]
    for index, piece in enumerate(sample.pieces):
        yield {"modality": "text", "index": index, "token": piece, "special": index not in words}
