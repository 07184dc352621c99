"""``explain.explain``: the explanation of a model's answer in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from explain.adapters.watching import Layers
from explain.capture.needs import Needs
from explain.explainers.base.explainer import Explainer
from explain.sample.chosen import Choice, chosen_explainers
from explain.sample.image import Picture, opened
from explain.sample.result import Explained
from explain.sample.scores import Scores
from explain.sample.traced import MOST_TOKENS, Asked, Goal, TracedSample
from explain.trace import TraceError


def explain(
    model: Any,
    processor: Any = None,
    image: Picture | Sequence[Picture] | None = None,
    text: str | None = None,
    *,
    explainer: Choice = "weighted",
    target: Goal = None,
    context: bool = False,
    word: str | int | None = None,
    layers: Layers = None,
    max_new_tokens: int = MOST_TOKENS,
) -> Explained:
    """Explain a model's answer to a text about an image.

    All explainers read one trace: one recorded forward pass and, if they need gradients, one backward pass. The words
    are those of the text alone, without the processor's chat template, its system prompt, placeholders of images, and
    the answer.

    Args:
        model: A model of ``transformers``, its folder or its name on the Hugging Face hub; an open_clip model; or a
            CLIPmapper of ``clipmapper.api``. It must be in evaluation mode.
        processor: The processor of a ``transformers`` model, by default that of its folder; ``(preprocess, tokenizer)``
            of an open_clip model; None for a model that needs none.
        image: A file or a PIL image; several of them for a model that takes several; None for a model of texts.
        text: The question, or the text to compare; None for a model of images.
        explainer: Name of an explainer in ``configs/explainer``, or an :class:`~explain.Explainer`; or several of them,
            also as a mapping from names of your own.
        target: What to explain instead of the model's own answer: an answer's text or the index of a class (of a
            language model, a token), or a pair, whose first is explained against its second.
        context: Whether a generated answer's words, up to the last, are shown as evidence as well.
        word: Explain only this word of the text that a language model of ``transformers`` generates, or of ``target``,
            by its text (the first of several equal words) or its place from 0.
        layers: Layers to record, as in :func:`explain.adapters.trace_hugging_face`; None records all.
        max_new_tokens: Most tokens of the answer that a language model of ``transformers`` generates; other models do
            not read it.

    Raises:
        ValueError: The input does not fit, or an explainer cannot explain the model; one line names the fix. It is a
            :class:`~explain.TraceError` if the model could not be traced.
    """
    _check_texts({"text": text, "target": target, "word": word})
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: an answer needs at least one token")
    chosen = chosen_explainers(explainer)
    photos = [opened(each) for each in ([image] if isinstance(image, str | Path | Image.Image) else image or [])]
    needs = Needs.of(chosen.values())
    asked = Asked(
        photos=photos,
        text=text,
        target=target,
        needs=needs,
        context=context,
        word=word,
        layers=layers,
        max_new_tokens=max_new_tokens,
    )
    return _explained(model, processor, asked, chosen)


def _check_texts(given: Mapping[str, Any]) -> None:
    """Raise ValueError if UTF-8, which tokenizers need, cannot hold one of the texts."""
    for name, value in given.items():
        for text in value if isinstance(value, tuple | list) else [value]:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"{name}={text!r} holds half of a character, which UTF-8 cannot hold: correct it")


def _explained(model: Any, processor: Any, asked: Asked, chosen: Mapping[str, Explainer]) -> Explained:
    """Trace a model once, and score the sample by all explainers; the errors are those of :func:`explain`."""
    try:
        sample = trace_sample(model, processor, asked)
        return Explained(sample, {name: Scores.of(sample, each) for name, each in chosen.items()})
    except TraceError as error:
        if "LRP has no rule" not in str(error):
            raise
        names = [name for name, each in chosen.items() if "attention_relevance" in each.needs]
        raise TraceError(
            f"{' and '.join(names)} cannot explain a {type(model).__name__}: {error}; "
            "explainers such as weighted, genatt or rollout need no LRP"
        ) from error


@singledispatch
def trace_sample(model: Any, processor: Any, asked: Asked) -> TracedSample:
    """Run a model on what is asked and return the trace; here, a model of open_clip or ``transformers``.

    For a class of your own, register a function: ``@trace_sample.register`` above ``def f(model: MyModel, processor,
    asked)``.

    Raises:
        ValueError: The processor, the images, the text or the target do not fit.
        TraceError: The model cannot be traced.
    """
    if isinstance(processor, tuple | list):
        from explain.sample.open_clip import trace_pair

        return trace_pair(model, processor, asked)
    from explain.sample.hugging_face import trace_loaded
    from explain.sample.loaded import loaded

    model, processor = loaded(model, processor)
    if not isinstance(model, nn.Module) or getattr(getattr(model, "config", None), "model_type", None) is None:
        raise ValueError(
            f"{type(model).__name__} is no model of transformers; an open_clip model needs "
            "processor=(preprocess, tokenizer)"
        )
    return trace_loaded(model, processor, asked)
