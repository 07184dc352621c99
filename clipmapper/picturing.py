"""Pictures of explained questions, written one by one."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from clipmapper.choosing import Aim
from clipmapper.data.images import BadImage
from clipmapper.encoder.pieces import merge_clip_pieces
from clipmapper.errors import UserError
from clipmapper.explain_config import ExplainConfig
from clipmapper.explained_sample import SCHEMA, Array, ExplainedSample, Rated, explain_samples, score_file, score_rows
from clipmapper.subject import QuestionBatch, Subject
from explain import Explainer, TraceError
from explain.figures import Explanation, Photo, Sample, draw, draw_interaction, save

SCORES = "scores.parquet"
LONGEST = 1200  # pixels of a photo's longer side: more than a figure prints of it
MOST_ANSWERS = 3  # of people's different answers, how many are shown
Box = tuple[float, float, float, float]
_Batch = TypeVar("_Batch")


def make_pictures(
    subject: Subject,
    rows: Sequence[int],
    explainers: Mapping[str, Explainer],
    config: ExplainConfig,
    folder: Path,
    scores: Path,
) -> int:
    """A figure a sample in ``folder``, and all scores in one Parquet file; the number of samples.

    What is made before an error stays. Raises ``UserError`` for an answer that the model does not know, a picture that
    can't be read, and a model that yields NaN.
    """
    aim = Aim.of(config, subject.model.answers)
    preprocessing = subject.model.encoder.vision.visual.preprocess_cfg
    made, hidden = 0, not config.trainer.enable_progress_bar
    with score_file(scores, SCHEMA) as write, tqdm(total=len(rows), desc="explaining", disable=hidden) as bar:
        for batch in _batches(subject, rows, config.encoder.batch_size):
            try:
                chosen = fitting(explainers, len(batch.questions))
                for sample in explain_samples(subject.model, batch, chosen, aim, config.interaction):
                    write(score_rows(sample))
                    draw_sample(sample, seen_box(sample.photo.size, preprocessing), config, folder)
                    made += 1
                    bar.update()
            except TraceError as error:
                raise UserError(f"{subject.checkpoint} can't be explained: {error}") from error
    if not made:
        raise UserError("none of the chosen pictures could be read; check the image folder in data.root")
    return made


def _batches(subject: Subject, rows: Sequence[int], size: int) -> Iterator[QuestionBatch]:
    """At most ``size`` questions at a time, batches of much the same size; those cut off are counted on stderr."""
    for chunk in np.array_split(rows, math.ceil(len(rows) / size)):
        for batch in readable(subject.batch, chunk.tolist()):
            if cut := batch.text.truncated:
                context = subject.model.encoder.text.context_length
                what = f"{cut} questions are longer than the encoder's {context} tokens and were cut off"
                tqdm.write(what, file=sys.stderr)
            yield batch


def fitting(explainers: Mapping[str, Explainer], samples: int) -> Mapping[str, Explainer]:
    """All explainers; of a lone sample those that need no second one, unless there are no others."""
    enough = {name: each for name, each in explainers.items() if samples >= each.min_batch}
    if not enough:
        return explainers
    for name in [name for name in explainers if name not in enough]:
        tqdm.write(f"explainer {name} is left out: it takes the weights of a second sample", file=sys.stderr)
    return enough


def readable(read: Callable[[Sequence[int]], _Batch | None], rows: Sequence[int]) -> Iterator[_Batch]:
    """One batch of the rows; where a picture ends the run, those before it come first."""
    try:
        batches = iter([read(rows)])
    except BadImage:
        batches = (read([row]) for row in rows)
    yield from (batch for batch in batches if batch is not None)


def draw_sample(sample: ExplainedSample, box: Box, config: ExplainConfig, folder: Path) -> None:
    """The sample's figure, and that of the interaction where it is asked for and the question has words."""
    photo = small_photo(sample.photo, box)
    name = folder / f"question_{sample.question.question_id}"
    save(draw(figure_of(sample, photo), config.overlay, config.scale), name, config.formats)
    if sample.interaction is not None and (words := _merged(sample.pieces, sample.interaction[:, sample.patches])):
        matrix = np.stack([scores for _, scores in words])
        figure = draw_interaction(photo, [word for word, _ in words], matrix, sample.grid, config.overlay)
        save(figure, f"{name}_interaction", config.formats)


def figure_of(sample: ExplainedSample, photo: Photo) -> Sample:
    """What is drawn of a sample: no class, read-out, start and end token; sub-words as words."""
    texts = {name: merge_clip_pieces(sample.pieces[1:-1], text[1:-1].tolist()) for name, text in sample.text.items()}
    explanations = [
        Explanation(name, image[sample.patches].reshape(sample.grid), [score for _, score in texts[name]])
        for name, image in sample.image.items()
    ]
    words = [word for word, _ in next(iter(texts.values()))]
    said, question = sample.answer, sample.question
    return Sample(photo, question.question, words, said.answer, said.probability, explanations, _caption(sample))


def seen_box(size: tuple[int, int], preprocessing: Mapping[str, Any]) -> Box:
    """The part of a photo that the encoder sees: left, top, right, bottom in pixels of the photo.

    CLIP's preprocessing scales the short side to the encoder's S and keeps the S × S pixels in the middle; whole pixels
    are rounded as torchvision's ``Resize`` and ``CenterCrop`` do.

    Args:
        size: Width and height of the photo.
        preprocessing: open_clip's settings: ``size``, an int or (rows, cols), and ``resize_mode``.

    Raises:
        UserError: the encoder is preprocessed in another way.
    """
    wanted, mode = preprocessing["size"], preprocessing.get("resize_mode", "shortest")
    rows, cols = (wanted, wanted) if isinstance(wanted, int) else wanted
    width, height = size
    if mode == "squash":
        return 0, 0, width, height
    if mode != "shortest" or rows != cols:
        raise UserError(f"photos of an encoder with resize_mode={mode} and {rows} × {cols} pixels can't be pictured")
    left, right = _kept(width, min(size), rows)
    top, bottom = _kept(height, min(size), rows)
    return left, top, right, bottom


def _kept(length: int, short: int, side: int) -> tuple[float, float]:
    """What is kept of one side of a photo whose short side is made ``side`` long."""
    resized = int(side * length / short)
    start = round((resized - side) / 2)
    return start * length / resized, min(length, (start + side) * length / resized)


def small_photo(image: Image.Image, box: Box) -> Photo:
    """The photo, no larger than a figure has use for."""
    small = image.copy()
    small.thumbnail((LONGEST, LONGEST))
    x, y = small.width / image.width, small.height / image.height
    left, top, right, bottom = box
    return Photo(small, (left * x, top * y, min(small.width, right * x), min(small.height, bottom * y)))


def _merged(pieces: Sequence[str], rows: Array) -> list[tuple[str, Array]]:
    """Words with the sum of their sub-words' rows [n, patches]; start and end token left out."""
    columns = [merge_clip_pieces(pieces[1:-1], column.tolist()) for column in rows[1:-1].T]
    return [(same[0][0], np.array([score for _, score in same])) for same in zip(*columns, strict=True)]


def _caption(sample: ExplainedSample) -> str:
    """What is explained if it is not the predicted answer, and what people said."""
    parts = []
    if sample.against is not None:
        parts.append(f"explained: {_rated(sample.target)} rather than {_rated(sample.against)}")
    elif sample.target != sample.answer:
        parts.append(f"explained: {_rated(sample.target)}")
    if counts := Counter(str(answer["answer"]) for answer in sample.question.answers).most_common(MOST_ANSWERS):
        parts.append("people: " + ", ".join(f"{answer} ({count})" for answer, count in counts))
    return "; ".join(parts)


def _rated(rated: Rated) -> str:
    percent = 100 * rated.probability
    return f"{rated.answer} ({percent:.0f} %)" if percent >= 0.5 else f"{rated.answer} (<1 %)"
