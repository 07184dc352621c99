"""The Python interface to trained models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import clipmapper.tasks.caption.explaining
import clipmapper.tasks.vqa.explaining  # noqa: F401 - both let explain.explain trace their models
from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.choice import newest_checkpoint
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.errors import UserError
from clipmapper.explaining.output import small_photo
from clipmapper.pretrained import pretrained_file
from clipmapper.tasks import TASKS
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from explain import Explainer, explain
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
        found = newest_checkpoint(file)
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
    photo = load_rgb(FileImage(Path(image)))
    try:
        content = explain(model, None, photo, question, explainer=explainers).figure_content()
    except ValueError as error:
        raise UserError(f"question {question!r} can't be explained: {error}") from error
    return replace(content, photo=small_photo(photo, content.photos[0].box))
