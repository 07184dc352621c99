"""An open_clip model on one pair of an image and a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from explain.adapters.open_clip import trace_open_clip
from explain.sample.maps import cropped_box
from explain.sample.traced import Answer, Asked, Box, TracedSample, View
from explain.sample.words import as_read


def trace_pair(model: Any, processor: Sequence[Any], asked: Asked) -> TracedSample:
    """Trace the similarity of an image and a text.

    Raises:
        ValueError: There is not one image and a text, a target is given, or the processor does not fit.
        TraceError: The model cannot be traced.
    """
    image, text = asked.photo(model), asked.question(model)
    asked.check_no_context(model)
    if asked.target is not None:
        raise ValueError("target: the only output of a dual encoder is the similarity of image and text")
    if len(processor) != 2 or not all(map(callable, processor)):
        raise ValueError("processor of an open_clip model is the pair (preprocess, tokenizer)")
    preprocess, tokenizer = processor
    weight = next(model.parameters())
    pixels, ids = preprocess(image), tokenizer([text])
    if not isinstance(pixels, torch.Tensor) or not isinstance(ids, torch.Tensor):
        raise ValueError("processor does not fit: expected (preprocess, tokenizer), in this order, both giving tensors")
    named = tokenizer if hasattr(tokenizer, "decoder") else None
    traced = trace_open_clip(
        model,
        pixels[None].to(weight.device, weight.dtype),
        ids.to(weight.device),
        needs=asked.needs,
        layers=asked.layers,
        tokenizer=named,
    )
    answer = Answer("similarity", similarity=float(traced.logits[0, 0]))
    words = [] if traced.words is None else traced.words[0]
    return TracedSample(
        traced=traced,
        photos=[image],
        seen=[_seen(preprocess, image.size, pixels.shape[-1])],
        views=[View(0)],
        words=words,
        question=text,
        answer=answer,
        explained=answer,
        read=as_read(text, [word for word, _ in words]) if words else None,
    )


def _seen(preprocess: Any, size: tuple[int, int], side: int) -> Box:
    """Return the part of a photo that is seen: all of it, unless its centre is cropped."""
    steps = [type(step).__name__ for step in getattr(preprocess, "transforms", ())]
    return (
        cropped_box(size, side, (side, side)) if "CenterCrop" in steps else (0.0, 0.0, float(size[0]), float(size[1]))
    )
