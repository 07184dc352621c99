"""Mllama (Llama 3.2 Vision): a text decoder with layers that attend to the tiles of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from explain.adapters.hugging_face.families.decoder import Images, decoder_plan, sequences
from explain.adapters.hugging_face.plan import Plan, Stack, needed
from explain.targets import Answer
from explain.traced import grid_boxes


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of an Mllama. The image token is part of the text, and the image is read by cross-attention.

    The image's columns are first the tower's other tokens (class tokens and the filling of its tensor, to which patches
    attend as well), then the patches of each tile. Features of intermediate layers, which the decoder also reads, count
    as those of the same patch after the last layer.

    Raises:
        TraceError: There is no text, no image, or a text without an image token.
    """
    text = sequences(model, inputs, answer, model.config.image_token_id)
    text = replace(text, slots=torch.zeros_like(text.slots), text=text.slots | text.text)
    return decoder_plan(model, text, _images(model, inputs), answer, tokenizer, model.model.language_model)


def _images(model: Any, inputs: Mapping[str, Any]) -> Images:
    pixels, tower = inputs["pixel_values"], model.model.vision_model  # [B, images, tiles, 3, H, W]
    batch, count, tiles = pixels.shape[:3]
    device = pixels.device
    side, size = tower.image_size // tower.patch_size, tower.patch_size
    held = -(-tower.num_patches // 8) * 8  # the tower fills each tile up to a multiple of 8 tokens
    tile = torch.arange(count * tiles, device=device)[:, None]
    patch = torch.arange(1, tower.num_patches, device=device)
    other = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(tower.num_patches, held)]).to(device)
    in_tower = torch.cat([(tile * held + other).flatten(), (tile * held + patch).flatten()])
    as_keys = torch.cat([tile * tower.num_patches, torch.full((len(tile), len(other) - 1), -1, device=device)], 1)
    as_keys = torch.cat([as_keys.flatten(), (tile * tower.num_patches + patch).flatten()])
    sample = torch.arange(batch, device=device)[:, None]
    places = in_tower + sample * count * tiles * held
    keys = (as_keys + sample * count * tiles * tower.num_patches).where(as_keys >= 0, -1)
    mask = needed(inputs, "aspect_ratio_mask", "the processor returns it with each image")
    real = mask.reshape(batch, -1).bool().repeat_interleave(len(patch), 1)
    boxes = grid_boxes((side, side), (size, size), device).repeat(len(tile), 1).expand(batch, -1, -1)
    blocks = [
        (f"model.vision_model.{name}.layers.{number}", layer)
        for name in ("transformer", "global_transformer")
        for number, layer in enumerate(tower.get_submodule(name).layers)
    ]
    crossed = frozenset(model.config.text_config.cross_attention_layers)
    return Images(
        stacks=[Stack("image", blocks, "image", places, {"image": places})],
        valid=torch.ones_like(places, dtype=torch.bool),
        patches=torch.cat([torch.zeros_like(places[:, : len(tile) * len(other)]).bool(), real], 1),
        weights=torch.zeros(batch, 0, places.shape[1], device=device),
        boxes=boxes.masked_fill(~real[:, :, None], 0),
        images=tile.flatten().repeat_interleave(len(patch)).expand(batch, -1),
        grid=None,
        cross=(crossed, keys),
    )
