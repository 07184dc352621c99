"""Pictures of explained captions, written one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from clipmapper.console import progress
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import fitting
from clipmapper.explaining.output import Box, score_file, seen_box, small_photo
from clipmapper.explaining.selection import drawn_order, readable, rows_of_ids
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.tasks.caption.config import ExplainCaptionConfig
from clipmapper.tasks.caption.explaining import contrast_class, explain_words, in_chunks
from clipmapper.tasks.caption.sample import SCHEMA, ExplainedCaption, explained_captions, score_rows
from clipmapper.tasks.caption.sentence import Word, split_words, word_weights
from clipmapper.tasks.caption.trained import CaptionedBatch, CaptionSubject
from clipmapper.training.batches import in_order
from explain import Explainer
from explain.figures import Caption, Photo, WordMaps, draw_caption, save

_WEIGHTED = {"equal": "equally", "bleu4": "by BLEU-4", "cider": "by CIDEr", "meteor": "by METEOR"}


def choose_pictures(subject: CaptionSubject, config: ExplainCaptionConfig) -> list[int]:
    """The rows of the pictures that the config names; at random, fewer are the first of more.

    Raises ``UserError`` for unknown ids, and for more samples than there are.
    """
    if config.image is not None:
        return [0]
    if config.select == "ids":
        return rows_of_ids([image.image_id for image in subject.images], config, "image")
    return drawn_order(len(subject.images), config, "images")[: config.samples]


def make_caption_pictures(
    subject: CaptionSubject,
    rows: Sequence[int],
    explainers: Mapping[str, Explainer],
    config: ExplainCaptionConfig,
    folder: Path,
    scores: Path,
) -> int:
    """A figure a picture in ``folder``, and all scores in one Parquet file; the number of captions explained.

    What is made before an error stays. Raises ``UserError`` for a picture that can't be read, a picture without
    references where the weighting needs some, and a model that yields NaN.
    """
    preprocessing = subject.model.encoder.vision.visual.preprocess_cfg
    made = 0
    with score_file(scores, SCHEMA) as write, progress(len(rows), "explaining", "pictures") as advance:
        for caption in _explained(subject, rows, explainers, config):
            write(score_rows(caption, config.against))
            draw(caption, seen_box(caption.photo.size, preprocessing), config, folder)
            made += 1
            advance()
    if not made:
        raise UserError("there is nothing to explain: no picture could be read, or their captions have no words")
    return made


def _explained(
    subject: CaptionSubject, rows: Sequence[int], explainers: Mapping[str, Explainer], config: ExplainCaptionConfig
) -> Iterator[ExplainedCaption]:
    """The captions, some ``batch_size`` sub-words from one trace; those without words are named on stderr."""
    model = subject.model
    corpus = None
    if config.weighting == "cider":
        corpus = build_cider_corpus(image.captions for image in subject.images if image.captions)
    grid = tuple(model.encoder.vision.visual.grid_size)
    against = None if config.against is None else contrast_class(model, config.against)
    for places in in_order(len(rows), config.batch_size):
        for pictures in readable(subject.batch, [rows[place] for place in places]):
            for batch in _with_words(pictures, config.batch_size):
                words = [split_words(ids, model.encoder.tokenizer) for ids in batch.captions]
                ids = [image.image_id for image in batch.images]
                texts = {key: [word.text for word in each] for key, each in zip(ids, words, strict=True)}
                references = {image.image_id: image.captions for image in batch.images}
                weights = word_weights(texts, references, config.weighting, corpus)
                _note_contrast(batch, words, config.against)
                usable = fitting(explainers, sum(map(len, batch.captions)))
                explained = explain_words(model, batch, usable, against, checkpoint=subject.checkpoint)
                spoken = [model.vocabulary.text(caption) for caption in batch.captions]
                yield from explained_captions(batch, explained, weights, spoken, grid)


def _note_contrast(batch: CaptionedBatch, words: Sequence[Sequence[Word]], against: str | None) -> None:
    """Names on stderr the captions that hold the word itself, whose margin to itself is 0."""
    for image, each in zip(batch.images, words, strict=True):
        if against is not None and against.lower() in [word.text for word in each]:
            what = f"image {image.image_id}: its caption holds {against} itself"
            print(f"{what}, so against={against} leaves nothing to explain there", file=sys.stderr)


def _with_words(pictures: CaptionedBatch, sub_words: int) -> Iterator[CaptionedBatch]:
    for image, caption in zip(pictures.images, pictures.captions, strict=True):
        if not caption:
            print(f"image {image.image_id} is left out: its caption has no words", file=sys.stderr)
    yield from (pictures.part(chunk) for chunk in in_chunks(pictures.captions, sub_words))


def draw(caption: ExplainedCaption, box: Box, config: ExplainCaptionConfig, folder: Path) -> None:
    """The caption's figure."""
    figure = draw_caption(figure_of(caption, small_photo(caption.photo, box), config), config.overlay, config.scale)
    save(figure, folder / f"image_{caption.image.image_id}", config.formats)


def figure_of(caption: ExplainedCaption, photo: Photo, config: ExplainCaptionConfig) -> Caption:
    """What is drawn of a caption: patches alone."""
    maps = [WordMaps(name, caption.patches(name), caption.whole(name)) for name in caption.image_scores]
    note = f"all words: weighted {_WEIGHTED[config.weighting]}"
    if config.against is not None:
        note = f"explained: each word rather than {config.against}; {note}"
    if caption.image.captions:
        note = f"people: {caption.image.captions[0]}; {note}"
    return Caption(photo, caption.caption, caption.words, maps, note)
