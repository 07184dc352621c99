"""Classifiers with one encoder: of images (ViT, DINOv2) or texts (BERT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.hugging_face.plan import (
    Plan,
    Stack,
    check_no_answer,
    layers_of,
    needed,
    patch_size,
    prefix_tokens,
    whole_batch,
)
from explain.adapters.hugging_face.text import inside_markers, words_of
from explain.targets import Answer
from explain.trace import TraceError
from explain.traced import grid_boxes


def plan(model: nn.Module, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a classifier of images or texts.

    Raises:
        TraceError: The model has no logits of classes, or an input is missing.
    """
    name = type(model).__name__
    check_no_answer(model, answer)
    if not name.endswith("Classification"):
        raise TraceError(f"{name} has no logits of classes: load a model for classification")

    def run() -> Tensor:
        logits: Tensor = model(**{**inputs, "return_dict": True}).logits
        return logits

    text = getattr(model.config, "model_type", "") == "bert"
    return _text_plan(model, inputs, tokenizer, run) if text else _image_plan(model, inputs, run)


def _image_plan(model: Any, inputs: Mapping[str, Any], run: Any) -> Plan:
    pixels = needed(inputs, "pixel_values", "the model needs an image")
    patch = patch_size(model.config)
    grid = (pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1])
    prefix, batch = prefix_tokens(model), len(pixels)
    count = prefix + grid[0] * grid[1]
    places = whole_batch(batch, count, pixels.device)
    stack = Stack("image", layers_of(model, model), "image", places, {"image": places})
    return Plan(
        sizes={"image": count},
        valid=torch.ones_like(places, dtype=torch.bool),
        stacks=[stack],
        run=run,
        removable=(torch.arange(count, device=pixels.device) >= prefix).expand(batch, -1),
        readout={"image": _image_readout(model, batch, prefix, count, pixels)},
        grid=grid,
        boxes=grid_boxes(grid, patch, pixels.device),
    )


def _image_readout(model: Any, batch: int, prefix: int, count: int, pixels: Tensor) -> Tensor:
    """Return the class token's row; DINOv2 reads it and the mean of the patches, each one half."""
    if "dinov2" not in model.config.model_type:
        return torch.zeros(batch, dtype=torch.long, device=pixels.device)
    weights = torch.zeros(batch, count, device=pixels.device)
    weights[:, 0] = 0.5
    weights[:, prefix:] = 0.5 / (count - prefix)
    return weights


def _text_plan(model: Any, inputs: Mapping[str, Any], tokenizer: Any, run: Any) -> Plan:
    ids = needed(inputs, "input_ids", "the model needs a text")
    mask = inputs.get("attention_mask")
    valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    places = whole_batch(len(ids), ids.shape[1], ids.device)
    first = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    inside = inside_markers(ids, valid, model.config, tokenizer)
    return Plan(
        sizes={"text": ids.shape[1]},
        valid=valid,
        stacks=[Stack("text", layers_of(model, model), "text", places, {"text": places})],
        run=run,
        removable=inside,
        readout={"text": first},
        words=None if tokenizer is None else words_of(ids, inside, 0, tokenizer),
    )
