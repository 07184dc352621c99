"""``explain.explain``: the explanation of a model's answer in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import nn

import explain.explainers as explainers
from explain.adapters.watching import Layers
from explain.capture.needs import Needs
from explain.explainers.base.explainer import Explainer
from explain.sample.result import Explained, Scores
from explain.sample.traced import Goal, Traceable, TracedSample
from explain.trace import TraceError

Picture = str | Path | Image.Image
Choice = str | Explainer | Sequence[str | Explainer] | Mapping[str, Explainer]


def explain(
    model: Any,
    processor: Any = None,
    image: Picture | Sequence[Picture] | None = None,
    text: str | None = None,
    *,
    explainer: Choice = "weighted",
    target: Goal = None,
    context: bool = False,
    layers: Layers = None,
) -> Explained:
    """Explain a model's answer to a text about an image.

    All explainers read one trace: one recorded forward pass and, if they need gradients, one backward pass. The words
    are those of the text alone, without the processor's chat template, its system prompt, placeholders of images, and
    the answer.

    Args:
        model: A model of ``transformers``, its folder or its name on the Hugging Face hub; an open_clip model; or a
            model with a method ``trace_sample``, such as a CLIPmapper. It must be in evaluation mode.
        processor: The processor of a ``transformers`` model, by default that of its folder; ``(preprocess, tokenizer)``
            of an open_clip model; None for a model that needs none.
        image: A file or a PIL image; several of them for a model that takes several; None for a model of texts.
        text: The question, or the text to compare; None for a model of images.
        explainer: Name of an explainer in ``configs/explainer``, or an :class:`~explain.Explainer`; or several of them.
        target: What to explain instead of the model's own answer: an answer's text or the index of a class (of a
            language model, a token), or a pair, whose first is explained against its second.
        context: Whether a generated answer's words, up to the last, are shown as evidence as well.
        layers: Layers to record, as in :func:`explain.adapters.trace_hugging_face`; None records all.

    Raises:
        ValueError: The input does not fit, or an explainer cannot explain the model; one line names the fix. It is a
            :class:`~explain.TraceError` if the model could not be traced.
    """
    chosen = chosen_explainers(explainer)
    photos = [_opened(each) for each in ([image] if isinstance(image, str | Path | Image.Image) else image or [])]
    needs = Needs.of(chosen.values())
    try:
        sample = _traced(model, processor, photos, text, target, needs, context, layers)
        return Explained(sample, {name: Scores.of(sample, each) for name, each in chosen.items()})
    except TraceError as error:
        if "LRP has no rule" in str(error):
            names = [name for name, each in chosen.items() if "attention_relevance" in each.needs]
            raise TraceError(
                f"{' and '.join(names)} cannot explain a {type(model).__name__}: {error}; "
                "explainers such as weighted, genatt or rollout need no LRP"
            ) from error
        raise


def chosen_explainers(choice: Choice) -> dict[str, Explainer]:
    """Return explainers by name.

    Raises:
        ValueError: A name is unknown, or an explainer needs samples of other images.
    """
    if isinstance(choice, Mapping):
        found = dict(choice)
    else:
        several = [choice] if isinstance(choice, str | Explainer) else list(choice)
        found = {_name(each): _named(each) if isinstance(each, str) else each for each in several}
    if not found:
        raise ValueError("explainer: name at least one, such as weighted")
    for name, each in found.items():
        if each.partners:
            raise ValueError(f"explainer {name} needs samples of other images: use scripts/perturb.py, or another one")
    return found


def _name(explainer: str | Explainer) -> str:
    """Return the name of an explainer, without underscores that it has in ``configs/explainer``."""
    return explainer if isinstance(explainer, str) else type(explainer).__name__.lower()


def _named(name: str) -> Explainer:
    classes = {each.lower(): each for each in explainers.__all__}
    known = classes.get(name.replace("_", ""))
    if known is None:
        raise ValueError(f"explainer={name!r} is unknown: choose one of {', '.join(sorted(classes))}")
    made: Explainer = getattr(explainers, known)()
    return made


def _opened(picture: Picture) -> Image.Image:
    """Return an image in RGB.

    Raises:
        ValueError: The file is missing or no image, or the object is of another kind.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if not isinstance(picture, str | Path):
        raise ValueError(f"image is a {type(picture).__name__}: give a file or a PIL image, or a list of them")
    try:
        with Image.open(picture) as opened:
            return opened.convert("RGB")
    except FileNotFoundError as error:
        raise ValueError(f"{picture}: no such image") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{picture}: cannot be read as an image") from error


def _traced(
    model: Any,
    processor: Any,
    photos: Sequence[Image.Image],
    text: str | None,
    target: Goal,
    needs: Needs,
    context: bool,
    layers: Layers,
) -> TracedSample:
    if isinstance(model, Traceable):
        return model.trace_sample(one_image(model, photos), needed_text(model, text), target, needs)
    if isinstance(processor, tuple | list):
        from explain.sample.open_clip import trace_pair

        return trace_pair(model, processor, one_image(model, photos), needed_text(model, text), target, needs, layers)
    from explain.sample.hugging_face import loaded, trace_sample

    model, processor = loaded(model, processor)
    if not isinstance(model, nn.Module) or getattr(getattr(model, "config", None), "model_type", None) is None:
        raise ValueError(
            f"{type(model).__name__} is no model of transformers; an open_clip model needs "
            "processor=(preprocess, tokenizer)"
        )
    return trace_sample(model, processor, photos, text, target, needs, context, layers)


def one_image(model: Any, photos: Sequence[Image.Image]) -> Image.Image:
    """Return the only image.

    Raises:
        ValueError: There is none, or there are several.
    """
    if len(photos) != 1:
        raise ValueError(f"{len(photos) or 'no'} image{'s' * (len(photos) > 1)}: {type(model).__name__} needs one")
    return photos[0]


def needed_text(model: Any, text: str | None) -> str:
    """Return the text.

    Raises:
        ValueError: There is none.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"no text: {type(model).__name__} needs a question or another text")
    return text
