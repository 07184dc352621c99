"""One explained question: every number behind its pictures, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clipmapper.data.records import Question
from clipmapper.tasks.vqa.explaining import Aim, Explained, explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, Subject
from explain import Explainer, Needs, mutual_interaction
from explain.explainers import Weighted

Array = NDArray[np.float32]
# A row a token. ``answer`` is the model's and ``probability`` its own; ``target`` (less ``against``) is explained.
# ``index`` is the token's place in its modality; patches have ``row`` and ``col``, all other tokens ``token``;
# ``special``: class, read-out, start and end token.
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
class Rated:
    """An answer and its probability, the sigmoid of its logit."""

    answer: str
    probability: float


@dataclass(frozen=True, eq=False)
class ExplainedSample:
    """``pieces`` are the text tokens as the tokenizer spells them, [n]: start token, sub-words, end token.

    By explainer, ``image`` has scores of a read-out token (if there is one), the class token and the patches, [n_v],
    and ``text`` of the pieces, [n]. ``grid`` is (rows, cols) of the patches; ``interaction`` [n, n_v] if asked for.
    """

    question: Question
    photo: Image.Image
    answer: Rated
    target: Rated
    against: Rated | None
    pieces: Sequence[str]
    grid: tuple[int, int]
    image: Mapping[str, Array]
    text: Mapping[str, Array]
    interaction: Array | None

    @property
    def patches(self) -> slice:
        """Where the patches lie among the image tokens."""
        rows, cols = self.grid
        total = len(next(iter(self.image.values())))
        return slice(total - rows * cols, total)


def explain_samples(
    subject: Subject, batch: QuestionBatch, explainers: Mapping[str, Explainer], aim: Aim, interaction: bool
) -> Iterator[ExplainedSample]:
    """The samples of a batch, all of them and all explainers from one trace.

    Raises:
        UserError: the model yields NaN or Inf.
    """
    model = subject.model
    weighted = Weighted()  # the rule by which R grows in an interaction
    more = Needs.of([weighted]) if interaction else None
    target = aim.target(model, batch)
    explained = explain(model, batch, explainers, target, more=more, checkpoint=subject.checkpoint)
    matrix = mutual_interaction(explained.traced.trace, "text", "image", weighted) if interaction else None
    for row in range(len(batch.questions)):
        yield _sample(model, batch, explained, aim, row, None if matrix is None else matrix[row])


def _sample(
    model: CLIPMapperVQA, batch: QuestionBatch, explained: Explained, aim: Aim, row: int, matrix: Tensor | None
) -> ExplainedSample:
    traced = explained.traced
    image, text = traced.trace.span("image"), traced.trace.span("text")
    ids = batch.text.ids[row][batch.text.valid[row]].tolist()
    scores = {name: of_batch[row].float().cpu().numpy() for name, of_batch in explained.scores.items()}
    probabilities = traced.logits[row].sigmoid()

    def rated(answer: int) -> Rated:
        return Rated(model.answers[answer], float(probabilities[answer]))

    predicted = int(traced.answers[row])
    return ExplainedSample(
        question=batch.questions[row],
        photo=batch.images[row],
        answer=rated(predicted),
        target=rated(predicted if aim.answer is None else aim.answer),
        against=None if aim.against is None else rated(aim.against),
        pieces=[model.encoder.tokenizer.decoder[i] for i in ids],
        grid=tuple(model.encoder.vision.visual.grid_size),
        image={name: of_sample[image] for name, of_sample in scores.items()},
        text={name: of_sample[text][: len(ids)] for name, of_sample in scores.items()},
        interaction=None if matrix is None else matrix[: len(ids)].float().cpu().numpy(),
    )


def score_rows(sample: ExplainedSample) -> Iterator[dict[str, Any]]:
    """What the file says of a sample, rows of ``SCHEMA``."""
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
        yield from ({**about, "explainer": explainer, **token, "score": float(score)} for token, score in tokens)


def _tokens(sample: ExplainedSample) -> Iterator[dict[str, Any]]:
    """What the file says of each token, in joint order."""
    first, cols = sample.patches.start, sample.grid[1]
    for index, name in enumerate(("read-out", "class")[-first:]):
        yield {"modality": "image", "index": index, "token": name, "special": True}
    for patch, index in enumerate(range(first, sample.patches.stop)):
        row, col = divmod(patch, cols)
        yield {"modality": "image", "index": index, "row": row, "col": col, "special": False}
    last = len(sample.pieces) - 1
    for index, piece in enumerate(sample.pieces):
        yield {"modality": "text", "index": index, "token": piece, "special": index in (0, last)}
