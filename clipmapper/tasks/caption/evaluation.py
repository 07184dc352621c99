"""Captions of a split in the format of COCO's evaluation, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clipmapper.choice import describe, find_checkpoint
from clipmapper.config.schema import EvaluateConfig, TrainConfig
from clipmapper.console import print_table
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.records import ImageSource
from clipmapper.data.shapes.caption_words import caption_judge
from clipmapper.encoder.load import FrozenClip
from clipmapper.files import CAPTIONS, read_json, write_json, write_metrics, write_results
from clipmapper.metrics.captions import METRICS, build_cider_corpus, score_captions, summary
from clipmapper.metrics.clipscore import clip_score, embed_captions, ref_clip_score
from clipmapper.process import together
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import CaptionedImages, TaskData, check_length, prepare_images
from clipmapper.tasks.caption.decoding import caption_images
from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption, load_caption
from clipmapper.tasks.submission import Submission
from clipmapper.training.batches import in_order
from clipmapper.training.identity import digest_of_file
from clipmapper.training.trainer import connect

CONSTANTS = 50  # number of the most frequent training captions tried as a constant caption for all images
_CLIP = ("CLIPScore", "RefCLIPScore")


def evaluate_captions(
    model: CLIPMapperCaption,
    images: CaptionedImages,
    training: Sequence[CaptionImage],
    max_length: int,
    folder: Path,
    name: str,
    judge: Callable[[int, str], bool] | None = None,
) -> dict[str, Any] | None:
    """Caption every image, write the captions, and score those of images with reference captions.

    ``submission_{name}.json`` is COCO's result file, ``[{image_id, caption}]``. COCO requires every image, so images
    that could not be read have an empty caption there. ``captions_{name}.json`` also has the references and scores of
    each caption.

    Args:
        model: The model.
        images: The images of a split.
        training: The training images, whose captions are tried as constant captions.
        max_length: Greatest number of sub-words of a caption.
        folder: Folder of the two files.
        name: Part of the files' names.
        judge: Function of image id and caption that returns whether the caption is true of the image.

    Returns:
        The scores; None if no image has reference captions, and in all processes but the first. ``constant`` is the
        CIDEr of the best constant caption, which a model reaches without looking at the image. With a ``judge``,
        ``true_captions`` is the share of true captions.

    Raises:
        UserError: The captions can't be scored (see :func:`~clipmapper.metrics.captions.score_captions`).
    """
    texts = caption_images(model, images, list(range(len(images))), max_length)
    if together.rank() > 0:
        return None
    given = {image.image_id: text for image, text in zip(images.images, texts, strict=True)}
    submitted = given | {image.image_id: "" for image in images.left_out}
    write_results(folder / f"submission_{name}.json", CAPTIONS, dict(sorted(submitted.items())))
    references = {image.image_id: image.captions for image in images.images if image.captions}
    rows = [_result_row(image, given[image.image_id], judge) for image in images.images]
    write_json(folder / f"captions_{name}.json", rows)  # written before scoring, which can fail
    if not references:
        return None
    scores = score_captions({image_id: given[image_id] for image_id in references}, references)
    clip = clip_values(model.encoder, images, given)
    write_json(folder / f"captions_{name}.json", [_add_scores(row, scores.per_image | clip) for row in rows])
    means = {metric: sum(values.values()) / len(values) for metric, values in clip.items()}
    caption, cider = best_constant(training, references)
    if judge is not None:
        means["true_captions"] = sum(row["true"] for row in rows) / len(rows)
    return {
        **summary(scores),
        **means,
        "clip_encoder": model.encoder.name,
        "constant": {"caption": caption, "CIDEr": cider},
        "not_captioned_by_people": len(images) - len(references),
    }


def _result_row(image: CaptionImage, caption: str, judge: Callable[[int, str], bool] | None) -> dict[str, Any]:
    row = {"image_id": image.image_id, "caption": caption, "references": image.captions}
    return row if judge is None else {**row, "true": judge(image.image_id, caption)}


def _add_scores(row: Mapping[str, Any], per_image: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    values = {metric: each[row["image_id"]] for metric, each in per_image.items() if row["image_id"] in each}
    return {**row, "scores": {metric: round(value, 6) for metric, value in values.items()}}


@torch.inference_mode()
def clip_values(
    encoder: FrozenClip, images: CaptionedImages, captions: Mapping[int, str]
) -> dict[str, dict[int, float]]:
    """Return CLIPScore and RefCLIPScore by metric and image id, without images that have no references.

    The scores use the model's own frozen encoder and its cached image tokens.
    """
    rows = [row for row, image in enumerate(images.images) if image.captions]
    device = encoder.vision.shared_projection.device
    batches = [images.tokens([rows[k] for k in places]).to(device) for places in in_order(len(rows), 256)]
    pictures = torch.cat([encoder.vision.pooled(batch) for batch in batches])
    chosen = [images.images[row] for row in rows]
    texts = embed_captions(encoder, [captions[image.image_id] for image in chosen])
    others = embed_captions(encoder, [text for image in chosen for text in image.captions])
    groups = others.split([len(image.captions) for image in chosen])
    values = (clip_score(pictures, texts), ref_clip_score(pictures, texts, groups))
    ids = [image.image_id for image in chosen]
    return {name: dict(zip(ids, found.tolist(), strict=True)) for name, found in zip(_CLIP, values, strict=True)}


def best_constant(training: Sequence[CaptionImage], references: Mapping[int, Sequence[str]]) -> tuple[str, float]:
    """Find the best constant caption among the most frequent training captions.

    Returns:
        The caption with the greatest CIDEr as the caption of every image, and its CIDEr.
    """
    counts = Counter(caption for image in training for caption in image.captions)
    tried = [caption for caption, _ in counts.most_common(CONSTANTS)]
    ids = list(references)
    keys = [(at, place) for at in range(len(tried)) for place in range(len(ids))]
    candidates = {at * len(ids) + place: tried[at] for at, place in keys}
    expected = {at * len(ids) + place: references[ids[place]] for at, place in keys}
    corpus = build_cider_corpus(references.values())
    values = list(score_captions(candidates, expected, ("CIDEr",), corpus).per_image["CIDEr"].values())
    means = [sum(values[at * len(ids) : (at + 1) * len(ids)]) / len(ids) for at in range(len(tried))]
    best = max(range(len(tried)), key=means.__getitem__)
    return tried[best], means[best]


def print_scores(title: str, scores: Mapping[str, Any]) -> None:
    """Print the scores as a table, with notes on metrics that are missing."""
    rows = [[name, f"{scores[name]:.4f}"] for name in (*METRICS, *_CLIP) if name in scores]
    if "true_captions" in scores:
        rows.append(["share of captions that are true of the scene", f"{scores['true_captions']:.4f}"])
    notes = ["Scores are from 0 to 1, except CIDEr (to 10), CLIPScore (to 2.5) and RefCLIPScore (to 1.43)."]
    if "constant" in scores:
        rows.append(["CIDEr of the best constant caption", f"{scores['constant']['CIDEr']:.4f}"])
        notes.append(f'The best constant caption is "{scores["constant"]["caption"]}".')
    notes += [f"{name}: {note}." for name, note in scores["notes"].items()]
    what = f"{title}, {scores['images']} images: scores of the captions"
    print_table(what, ["metric", "score ↑"], rows, " ".join(notes))


def evaluate_splits(model: CaptionMapper, data: TaskData, config: TrainConfig, run: Path) -> dict[str, Any]:
    """Caption validation and test, write the captions, then print and return their scores."""
    assert isinstance(config.task, CaptionTaskConfig)
    whole = CLIPMapperCaption(data.prepared.encoder, model, data.captions.vocabulary)
    metrics: dict[str, Any] = {}
    for part in ("val", "test"):
        if part not in data.images:
            continue
        common, judge = data.prepared.splits.train.images, caption_judge(config.data, part)
        if scores := evaluate_captions(whole, data.images[part], common, config.task.max_length, run, part, judge):
            metrics[part] = scores
            print_scores(f"{config.data.name} {part}", scores)
    return metrics


def examples(data: TaskData, run: Path, count: int) -> list[tuple[ImageSource, str]]:
    """Return some images of the last split with the model's caption."""
    part = list(data.images)[-1]
    rows = read_json(run / f"captions_{part}.json")
    images = {image.image_id: image.image for image in data.images[part].images}
    return [(images[row["image_id"]], row["caption"]) for row in rows[:: -(-len(rows) // count)]]


def score_checkpoint(config: EvaluateConfig, run: Path) -> dict[str, Any]:
    """Write a checkpoint's captions of a split; print, write and return their scores, if there are references."""
    assert isinstance(config.task, CaptionTaskConfig)
    submission = Submission.planned(config)
    device = connect(config.trainer)
    checkpoint = find_checkpoint(config, config.checkpoint)
    print(f"checkpoint: {describe(checkpoint)}", flush=True)
    together.check_agreed(lambda: {"weights": digest_of_file(checkpoint)})
    model = load_caption(checkpoint, config).to(device)
    check_length(model.encoder, config.task.max_length)
    prepared = prepare_images(config, config.split)
    images, training = prepared.images(config.split), prepared.splits.train.images
    judge = caption_judge(config.data, config.split)
    scores = evaluate_captions(model, images, training, config.task.max_length, run, config.split, judge)
    if together.rank() > 0:
        return {}
    if submission is not None:
        submission.write(run / f"submission_{config.split}.json", CAPTIONS)
    if scores is None:
        print(f"{config.data.name} {config.split} has no reference captions: wrote only the model's captions")
        return {}
    write_metrics(run / "metrics.json", {config.split: scores, "checkpoint": str(checkpoint)}, asdict(config))
    print_scores(f"{config.data.name} {config.split}", scores)
    return {config.split: scores}
