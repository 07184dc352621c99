"""Figures of explained samples of any model, written one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipmapper.any_model.explainers import usable
from clipmapper.any_model.load import LoadedModel
from clipmapper.any_model.samples import Sample, load_samples, readable
from clipmapper.any_model.words import count_words
from clipmapper.config.explain import ModelPictureConfig
from clipmapper.console import print_table, progress
from clipmapper.data.images import FileImage
from clipmapper.data.shapes.evidence import SplitEvidence, known_evidence
from clipmapper.errors import UserError
from clipmapper.explaining.output import PICTURES, result_files
from clipmapper.explaining.selection import drawn_rows, rows_of_ids
from explain import Explainer
from explain.figures import draw, sample_content, save
from explain.sample.entry import explain
from explain.sample.result import Explained

# One row per explainer and cell of the map or word. ``place`` counts the cells row by row, or the words.
SCHEMA = pa.schema(
    {
        "sample_id": pa.int64(),
        "text": pa.string(),
        "answer": pa.string(),
        "probability": pa.float64(),
        "similarity": pa.float64(),
        "target": pa.string(),
        "against": pa.string(),
        "explainer": pa.string(),
        "modality": pa.string(),
        "place": pa.int32(),
        "word": pa.string(),
        "row": pa.int32(),
        "col": pa.int32(),
        "score": pa.float64(),
    }
)


def write_pictures(
    loaded: LoadedModel, explainers: Mapping[str, Explainer], config: ModelPictureConfig, run: Path
) -> int:
    """Write one figure per sample, and all scores and contents of figures, each into one file.

    What was written for samples before an error is kept.

    Returns:
        The number of explained samples.

    Raises:
        UserError: A sample cannot be read or explained, or the model has no such answer.
    """
    samples = _chosen(config, loaded)
    if (words := count_words(loaded, [sample.text for sample in samples])) is not None:
        print(words, flush=True)
    own = config.image is not None or config.question is not None
    known = None if own or loaded.dual else known_evidence(config.data, config.split)  # a dual encoder reads captions
    answers: list[list[str]] = []
    with result_files(run, SCHEMA) as write, progress(len(samples), "explaining", "samples") as advance:
        for sample, image in readable(samples, config.data.on_bad_image):
            if not answers:
                explainers = usable(explainers, loaded, image, sample.text)
            found = _explained(loaded, explainers, config, sample, image)
            write(_rows(sample, found), _draw(sample, found, known, config, run / PICTURES))
            shown = found.answer.probability if found.answer.similarity is None else found.answer.similarity
            answers.append([str(sample.id), sample.text or "–", found.answer.text, f"{shown:.3f}"])
            advance()
    if not answers:
        raise UserError("none of the chosen images could be read; check the data")
    title = "answers of the model, with their probabilities from 0 to 1, or the similarity of image and text"
    print_table(title, ["sample_id", "text", "answer", "value"], answers, text=(1, 2))
    return len(answers)


def _chosen(config: ModelPictureConfig, loaded: LoadedModel) -> Sequence[Sample]:
    """Return the user's own sample, or those of the data that the config chooses."""
    if config.image is not None or config.question is not None:
        return [Sample(0, None if config.image is None else FileImage(Path(config.image)), config.question)]
    samples = load_samples(config.data, config.split, loaded.dual)
    if config.ids:
        rows = rows_of_ids([sample.id for sample in samples], config, "sample")
    else:
        rows = drawn_rows(len(samples), config, "samples")[: config.samples]
    return [samples[row] for row in rows]


def _explained(
    loaded: LoadedModel, explainers: Mapping[str, Explainer], config: ModelPictureConfig, sample: Sample, image: Any
) -> Explained:
    target: Any = config.answer
    most = loaded.max_new_tokens
    try:
        if config.against is not None:
            if config.answer is None:
                own = explain(loaded.model, loaded.processor, image, sample.text, max_new_tokens=most)
                target = own.answer.text
            target = (target, config.against)
        options: dict[str, Any] = {
            "explainer": explainers,
            "target": target,
            "layers": loaded.layers,
            "max_new_tokens": most,
        }
        return explain(loaded.model, loaded.processor, image, sample.text, **options)
    except ValueError as error:
        key = "against" if repr(config.against) in str(error) else "answer"
        raise UserError(f"sample {sample.id}: {str(error).replace('target=', f'{key}=')}") from error


def _draw(
    sample: Sample, found: Explained, known: SplitEvidence | None, config: ModelPictureConfig, folder: Path
) -> dict[str, Any]:
    """Write the sample's figure, with the evidence if it is known, and return its content."""
    name, content = f"sample_{sample.id}", found.figure_content()
    if known is not None and sample.text is not None:
        words = known.answer_words(sample.id, sample.text, content.words)
        photos = [replace(photo, evidence=known.answer_pixels(sample.id, sample.image_id)) for photo in content.photos]
        content = replace(content, photo=photos, evidence=words)
    save(draw(content, config.overlay, config.scale), folder / name, config.formats)
    return {"name": name, **sample_content(content, None if found.interaction is None else found.interaction[0])}


def _rows(sample: Sample, found: Explained) -> Iterator[dict[str, Any]]:
    """Yield a row for every score."""
    about = {
        "sample_id": sample.id,
        "text": sample.text,
        "answer": found.answer.text,
        "probability": found.answer.probability,
        "similarity": found.answer.similarity,
        "target": found.explained.text,
        "against": None if found.sample.over is None else found.sample.over.text,
    }
    for name, scores in found.scores.items():
        for image in scores.images:
            cols = image.shape[1]
            for place, score in enumerate(image.ravel().tolist()):
                cell = {"modality": "image", "place": place, "row": place // cols, "col": place % cols}
                yield {**about, "explainer": name, **cell, "score": score}
        for place, ((word, _), score) in enumerate(zip(found.sample.words, scores.words.tolist(), strict=True)):
            yield {**about, "explainer": name, "modality": "text", "place": place, "word": word, "score": score}
