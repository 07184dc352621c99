"""LLaVA: a vision tower whose patches become a language model's image tokens, one to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from explain.adapters.hugging_face.families.decoder import (
    Images,
    decoder_plan,
    images_per_sample,
    sequences,
    split_images,
)
from explain.adapters.hugging_face.plan import Plan, Stack, layers_of, patch_size, prefix_tokens
from explain.targets import Answer
from explain.trace import TraceError
from explain.traced import grid_boxes


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a LLaVA. The tower's layers above ``vision_feature_layer`` are not used, so not recorded.

    Raises:
        TraceError: Several feature layers are joined, or the image tokens do not match the images.
    """
    text = sequences(model, inputs, answer, model.config.image_token_id)
    return decoder_plan(model, text, _images(model, inputs, text), answer, tokenizer, model.model.language_model)


def _images(model: Any, inputs: Mapping[str, Any], text: Any) -> Images:
    pixels, tower, config = inputs["pixel_values"], model.model.vision_tower, model.config
    blocks = used_layers(model, tower, config.vision_feature_layer)
    patch = patch_size(config.vision_config)
    grid = (pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1])
    prefix, patches = prefix_tokens(tower), grid[0] * grid[1]
    dropped = config.vision_feature_select_strategy == "default"
    if dropped and prefix != 1:
        raise TraceError(f"vision_feature_select_strategy='default' drops a class token, the tower has {prefix}")
    per_image = patches if dropped else prefix + patches
    per_sample = images_per_sample(text.counts, per_image, len(pixels))
    numbers = split_images(per_sample, pixels.device)  # [B, I]
    # The columns are the class tokens of all images, then the patches of each image.
    first = numbers * (prefix + patches)
    of_class = first[:, :, None] + torch.arange(prefix, device=pixels.device)
    of_patch = first[:, :, None] + torch.arange(prefix, prefix + patches, device=pixels.device)
    absent = (numbers < 0)[:, :, None]
    of_class, of_patch = (each.masked_fill(absent, -1).flatten(1) for each in (of_class, of_patch))
    places = torch.cat([of_class, of_patch], 1)
    slots = of_patch
    if not dropped:
        by_image = [each.unflatten(1, (numbers.shape[1], -1)) for each in (of_class, of_patch)]
        slots = torch.cat(by_image, 2).flatten(1)
    boxes = grid_boxes(grid, patch, pixels.device).repeat(numbers.shape[1], 1)
    return Images(
        stacks=[Stack("image", blocks, "image", places, {"image": places})],
        valid=places >= 0,
        patches=(places >= 0) & (torch.arange(places.shape[1], device=pixels.device) >= of_class.shape[1]),
        weights=((slots[:, :, None] == places[:, None, :]) & (slots >= 0)[:, :, None]).to(torch.float32),
        boxes=boxes.expand(len(numbers), -1, -1).masked_fill((of_patch < 0)[:, :, None], 0),
        images=torch.arange(numbers.shape[1], device=pixels.device).repeat_interleave(patches).expand(len(numbers), -1),
        grid=grid if set(per_sample) == {1} else None,
    )


def used_layers(model: Any, tower: Any, feature_layer: int | list[int]) -> list[tuple[str, Any]]:
    """Return the tower's layers that the hidden state of ``feature_layer`` depends on.

    Raises:
        TraceError: Hidden states of several layers are joined.
    """
    if not isinstance(feature_layer, int):
        raise TraceError(f"vision_feature_layer={feature_layer}: hidden states of several layers cannot be traced")
    blocks = layers_of(model, tower)
    return blocks[: feature_layer if feature_layer >= 0 else len(blocks) + 1 + feature_layer]
