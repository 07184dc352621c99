"""Idefics3 and SmolVLM: tiles of an image, and squares of patches joined into one image token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from explain.adapters.hugging_face.families.decoder import decoder_plan, sequences
from explain.adapters.hugging_face.families.tower import Frames, images_per_sample, squares, tower_images
from explain.adapters.hugging_face.plan import Plan
from explain.targets import Answer
from explain.trace import TraceError


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of an Idefics3 or SmolVLM. A frame is a tile; the last one is usually the whole image, smaller.

    Raises:
        TraceError: The image tokens do not match the tiles.
    """
    text = sequences(model, inputs, answer, model.config.image_token_id)
    pixels = inputs["pixel_values"]  # [B, frames, 3, H, W]; frames of zeros are padding, which the model drops
    frames = Frames.of(model, model.model.vision_model, pixels)
    square = squares(frames.grid, model.config.scale_factor)
    real = (pixels != 0).flatten(2).any(2).sum(1).tolist()
    per_sample = images_per_sample(text.counts, len(square), sum(real))
    if per_sample != real:
        raise TraceError(f"the texts have {text.counts} image tokens, but {real} tiles need {len(square)} each")
    weights = [torch.block_diag(*[square] * count) for count in per_sample]
    images = tower_images(frames, per_sample, weights, text, model.model.connector)
    return decoder_plan(model, text, images, answer, tokenizer, model.model.text_model)
