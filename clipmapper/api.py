"""The Python interface to trained models."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.choice import newest_checkpoints
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import examine
from clipmapper.explaining.output import seen_box, small_photo
from clipmapper.pretrained import pretrained_file
from clipmapper.tasks import TASKS
from clipmapper.tasks.vqa.explaining import AnswerTarget
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.pictures import figure_of
from clipmapper.tasks.vqa.sample import explain_samples
from clipmapper.tasks.vqa.trained import question_batch
from explain import Explainer
from explain.explainers import Weighted
from explain.figures import Sample

WEIGHTED: Mapping[str, Explainer] = MappingProxyType({"weighted": Weighted()})


def load_pretrained(task: str = "vqa", mapper: str = "b") -> Any:
    """Load a trained model that the package contains.

    Args:
        task: ``vqa`` or ``caption``.
        mapper: ``a`` (single-stream) or ``b`` (dual-stream).

    Returns:
        A ``CLIPMapperVQA`` or a ``CLIPMapperCaption``, frozen and in evaluation mode.

    Raises:
        UserError: The package has no such model.
    """
    path = pretrained_file(task, mapper)
    if path is None:
        raise UserError(f"no model of task={task} mapper={mapper} is shipped; train one with scripts/train.py")
    return load_checkpoint(path)


def load_checkpoint(path: str | Path) -> Any:
    """Load the trained model of a run folder or a checkpoint file.

    Args:
        path: A run folder of ``scripts/train.py``, whose newest ``best.ckpt`` is loaded, or a checkpoint file.

    Returns:
        A ``CLIPMapperVQA`` or a ``CLIPMapperCaption``, frozen and in evaluation mode.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    file = Path(path)
    if file.is_dir():
        found = next(newest_checkpoints(file), None)
        if found is None:
            raise UserError(f"no checkpoint in {path}; give a run folder of scripts/train.py, or a checkpoint file")
        file = found
    task = read_checkpoint(file)[CARD]["task"]
    if task not in TASKS:
        raise UserError(f"checkpoint {file} has task={task}, which is not one of: {', '.join(TASKS)}")
    return TASKS[task].load(file)


def explain_question(
    model: CLIPMapperVQA, image: str | Path, question: str, explainers: Mapping[str, Explainer] = WEIGHTED
) -> Sample:
    """Answer a question about an image and explain the answer.

    A question with unknown words, or an image that is far from the training images, gives a warning
    (:mod:`clipmapper.explaining.familiarity`).

    Args:
        model: A VQA model of :func:`load_pretrained` or :func:`load_checkpoint`.
        image: The image file.
        question: The question.
        explainers: Explainers by name that need no samples of other images; by default weighted relevance.

    Returns:
        The predicted answer with its probability, and for each explainer the scores of the patches, [rows, cols], and
        of the words, [n_words]. ``explain.figures.draw`` draws it.

    Raises:
        UserError: The image can't be read, or an explainer can't explain the answer.
    """
    batch = question_batch(model, [Question(0, 0, question)], [load_rgb(FileImage(Path(image)))])
    for line in examine(model, batch.pixels, [question])[0].warnings:
        warnings.warn(line, stacklevel=2)
    sample = next(explain_samples(model, batch, explainers, AnswerTarget()))
    box = seen_box(sample.photo.size, model.encoder.vision.visual.preprocess_cfg)
    return figure_of(sample, small_photo(sample.photo, box))
