"""The scorer of a model that a user gives."""

from __future__ import annotations

from typing import Any

from torch import nn

from clipmapper.errors import UserError
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from explain.sample.hugging_face import CLASSIFIERS, DUAL
from explain.sample.loaded import loaded
from explain.sample.traced import MOST_TOKENS
from perturbation.pairs.scorers.base import Scorer
from perturbation.pairs.scorers.classes import clipmapper_classes, hugging_face_classes
from perturbation.pairs.scorers.dual import hugging_face_dual, open_clip_dual
from perturbation.pairs.scorers.function import FunctionScorer
from perturbation.pairs.scorers.generating import GeneratingScorer


def ready(model: Any, processor: Any) -> tuple[Any, Any]:
    """Return a model and its processor, loaded if they are a folder or a name on the Hugging Face hub."""
    return loaded(model, processor) if isinstance(model, str) or hasattr(model, "config") else (model, processor)


def scorer_of(model: Any, processor: Any, max_new_tokens: int = MOST_TOKENS) -> Scorer:
    """Return the scorer of a model from :func:`ready`.

    Args:
        model: The model.
        processor: Its processor.
        max_new_tokens: Most tokens of an answer of a language model.

    Raises:
        UserError: The model is of no known kind.
    """
    if isinstance(model, CLIPMapperVQA):
        return clipmapper_classes(model)
    if not isinstance(model, nn.Module):
        if callable(model):
            return FunctionScorer(model)
        raise UserError(f"model is a {type(model).__name__}: give a model, or a function (images, texts) → scores")
    if isinstance(processor, tuple | list):
        return open_clip_dual(model, processor)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind is None or processor is None:
        raise UserError(
            f"{type(model).__name__} is no model of transformers with its processor, and no open_clip model with "
            "processor=(preprocess, tokenizer): give a function (images, texts) → scores"
        )
    if kind in DUAL:
        return hugging_face_dual(model, processor)
    if kind in CLASSIFIERS:
        return hugging_face_classes(model, processor)
    return GeneratingScorer(model, processor, max_new_tokens)
