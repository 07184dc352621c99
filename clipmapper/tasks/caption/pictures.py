"""Figures of explained captions, written one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipmapper.console import print_table, progress
from clipmapper.data.shapes.caption_truth import KnownScene
from clipmapper.data.shapes.caption_words import named_objects, read_scenes
from clipmapper.data.shapes.evidence import Mask, SplitEvidence, known_evidence
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import scoring, usable_for
from clipmapper.explaining.familiarity import examine, note_unknown
from clipmapper.explaining.output import PICTURES, Warnings, result_files, seen_box, small_photo, warning_file
from clipmapper.explaining.selection import drawn_rows, readable, rows_of_ids
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.tasks.caption.config import ExplainCaptionConfig
from clipmapper.tasks.caption.explaining import caption_partners, contrast_class, explain_words, in_chunks
from clipmapper.tasks.caption.sample import SCHEMA, ExplainedCaption, explained_captions, score_rows
from clipmapper.tasks.caption.sentence import Word, split_words, word_weights
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner
from clipmapper.text import printable
from clipmapper.training.batches import in_order
from explain import Explainer
from explain.figures import Caption, Photo, WordMaps, caption_content, draw_caption_pages, save

_WEIGHTED = {"equal": "equally", "bleu4": "by BLEU-4", "cider": "by CIDEr", "meteor": "by METEOR"}


def select(trained: TrainedCaptioner, config: ExplainCaptionConfig) -> list[int]:
    """Return the rows of the images that the config chooses.

    With the same seed, a smaller number of random samples gives the first ones of a larger number.

    Raises:
        UserError: An id is unknown, or there are fewer images than requested.
    """
    if config.image is not None:
        return [0]
    if config.select == "ids":
        return rows_of_ids([image.image_id for image in trained.images], config, "image")
    return drawn_rows(len(trained.images), config, "images")[: config.samples]


def write_pictures(
    trained: TrainedCaptioner,
    rows: Sequence[int],
    explainers: Mapping[str, Explainer],
    config: ExplainCaptionConfig,
    run: Path,
) -> int:
    """Write one figure per image, and all scores, contents of figures and warnings, each into one file.

    What was written for images before an error is kept.

    Args:
        trained: The model and its images.
        rows: Images to explain.
        explainers: Explainers by name.
        config: The command's config.
        run: The run folder.

    Returns:
        The number of explained captions.

    Raises:
        UserError: An image can't be read, it lacks the references that the weighting needs, there is nothing to
            explain, or the model yields NaN or Inf.
    """
    explainers = scoring(explainers, ["image"])  # figures of captions show patches only
    preprocessing = trained.model.encoder.vision.visual.preprocess_cfg
    note_unknown(trained.model.familiarity, asked=False)
    known = known_evidence(config.data, config.split) if config.image is None else None
    scenes = {} if known is None else read_scenes(known)
    said: list[list[str]] = []
    made = 0
    with (
        result_files(run, SCHEMA) as write,
        warning_file(run) as warnings,
        progress(len(rows), "explaining", "images") as advance,
    ):
        for caption in _explain_captions(trained, rows, explainers, config, warnings):
            photo = small_photo(caption.photo, seen_box(caption.photo.size, preprocessing))
            figure = figure_of(caption, photo, config)
            if known is not None:
                figure = replace(figure, evidence=_named(caption, known, scenes[caption.image.image_id]))
            content = draw(caption, figure, config, run / PICTURES)
            write(score_rows(caption, config.against), {**content, "warnings": warnings.of(caption.image.image_id)})
            made += 1
            advance()
            said.append([str(caption.image.image_id), caption.caption])
    if not made:
        raise UserError("there is nothing to explain: no image could be read, or the captions have no words")
    print_table("captions of the model", ["image_id", "caption"], said, text=(1,))
    return made


def _explain_captions(
    trained: TrainedCaptioner,
    rows: Sequence[int],
    explainers: Mapping[str, Explainer],
    config: ExplainCaptionConfig,
    warnings: Warnings,
) -> Iterator[ExplainedCaption]:
    """Yield the explained captions, about ``batch_size`` sub-words per trace; report those without words on stderr.

    Unfamiliar images are reported by ``warnings``.
    """
    model = trained.model
    corpus = None
    if config.weighting == "cider":
        corpus = build_cider_corpus(image.captions for image in trained.images if image.captions)
    grid = model.encoder.vision.grid_size
    against = None if config.against is None else contrast_class(model, config.against)
    partners = caption_partners(trained, rows, config.seed, against)
    usable = usable_for(explainers, len(partners.images))
    for places in in_order(len(rows), config.at_once):
        for pictures in readable(trained.batch, [rows[place] for place in places]):
            for batch in _split_by_sub_words(pictures, config.at_once):
                words = [split_words(ids, model.encoder.tokenizer) for ids in batch.captions]
                ids = [image.image_id for image in batch.images]
                texts = {key: [word.text for word in each] for key, each in zip(ids, words, strict=True)}
                references = {image.image_id: image.captions for image in batch.images}
                weights = word_weights(texts, references, config.weighting, corpus)
                _note_contrast(batch, words, config.against)
                for number, finding in zip(ids, examine(model, batch.pixels), strict=True):
                    warnings.add({"image_id": number}, finding)
                bound, _ = partners.bind(usable, batch.items)
                explained = explain_words(model, batch, bound, against, checkpoint=trained.checkpoint)
                captions = [model.vocabulary.text(caption) for caption in batch.captions]
                yield from explained_captions(batch, explained, weights, captions, grid)


def _note_contrast(batch: CaptionedBatch, words: Sequence[Sequence[Word]], against: str | None) -> None:
    """Report on stderr the captions that contain the word ``against``, where the explained difference is 0."""
    for image, each in zip(batch.images, words, strict=True):
        if against is not None and against.lower() in [word.text for word in each]:
            what = f"image {image.image_id}: its caption contains {against}"
            line = f"{what}, so against={against} leaves nothing to explain at that word"
            print(printable(line), file=sys.stderr)


def _split_by_sub_words(pictures: CaptionedBatch, sub_words: int) -> Iterator[CaptionedBatch]:
    """Yield batches of about ``sub_words`` sub-words; report captions without words on stderr and leave them out."""
    for image, caption in zip(pictures.images, pictures.captions, strict=True):
        if not caption:
            print(f"image {image.image_id} is left out: its caption has no words", file=sys.stderr)
    yield from (pictures.part(chunk) for chunk in in_chunks(pictures.captions, sub_words))


def _named(caption: ExplainedCaption, known: SplitEvidence, scene: KnownScene) -> dict[int, Mask]:
    """Return where the objects are that words of a true caption name, by the number of the word."""
    named = named_objects(caption.words, scene)
    return {each.word: known.object_pixels(caption.image.image_id, each.objects) for each in named}


def draw(caption: ExplainedCaption, figure: Caption, config: ExplainCaptionConfig, folder: Path) -> dict[str, Any]:
    """Write the caption's figure, on several pages if it is high, and return its content for the file of contents."""
    name = f"image_{caption.image.image_id}"
    pages = draw_caption_pages(figure, config.overlay, config.scale)
    for number, page in enumerate(pages, start=1):
        save(page, folder / (name if len(pages) == 1 else f"{name}_{number}"), config.formats)
    return {"name": name, **caption_content(figure)}


def figure_of(caption: ExplainedCaption, photo: Photo, config: ExplainCaptionConfig) -> Caption:
    """Return the content of a caption's figure, whose maps have only the patches' scores."""
    maps = [WordMaps(name, caption.patches(name), caption.whole(name)) for name in caption.image_scores]
    note = f"all words: weighted {_WEIGHTED[config.weighting]}"
    if config.against is not None:
        note = f"explained: each word rather than {config.against}; {note}"
    if caption.image.captions:
        note = f"people: {caption.image.captions[0]}; {note}"
    return Caption(photo, caption.caption, caption.words, maps, note)
