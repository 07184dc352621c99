"""Qwen2-VL and Qwen2.5-VL: packed patches of images of any size, merged 2 × 2; Qwen2.5-VL attends in windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from explain.adapters.hugging_face.families.decoder import Images, Sequences, decoder_plan, sequences
from explain.adapters.hugging_face.plan import Plan, Stack, layers_of, needed
from explain.targets import Answer
from explain.trace import TraceError
from explain.traced import grid_boxes


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a Qwen-VL. The columns of an image are its patches, row by row; boxes are in its own pixels.

    Raises:
        TraceError: There is a video, or the image tokens do not match the images.
    """
    if inputs.get("pixel_values_videos") is not None:
        raise TraceError("inputs have a video (pixel_values_videos): only images can be traced")
    text = sequences(model, inputs, answer, model.config.image_token_id)
    images = packed_images(model, inputs, text)
    return decoder_plan(model, text, images, answer, tokenizer, model.model.language_model)


@dataclass(frozen=True, eq=False)
class _Packed:
    """One image in the packed sequence of patches, in which the patches that are merged are neighbours."""

    places: Tensor  #: of its patches, row by row, [P]
    blocks: Tensor  #: the merged token of each patch, [P]
    boxes: Tensor  #: [P, 4]


def packed_images(model: Any, inputs: Mapping[str, Any], text: Sequences) -> Images:
    """Return the images of a batch whose patches are packed into one sequence.

    Raises:
        TraceError: The image tokens do not match the images.
    """
    grids: list[list[int]] = needed(inputs, "image_grid_thw", "the processor returns it with each image").tolist()
    tower, device = model.model.visual, text.slots.device
    merge, size = tower.spatial_merge_size, tower.config.patch_size
    per_sample = _images_per_sample(text.counts, [t * h * w // merge**2 for t, h, w in grids])
    moved, first, packed = _moved(model, inputs["image_grid_thw"]), 0, []
    for grid in grids:
        packed.append(_pack(grid, merge, size, first, moved, device))
        first += grid[0] * grid[1] * grid[2]
    places, boxes, numbers, blocks = [], [], [], []
    for own in per_sample:
        images = [packed[k] for k in own]
        offsets = torch.tensor([0, *(int(image.blocks.max()) + 1 for image in images)]).cumsum(0).tolist()
        places.append(torch.cat([image.places for image in images]))
        boxes.append(torch.cat([image.boxes for image in images]))
        blocks.append(torch.cat([image.blocks + at for image, at in zip(images, offsets, strict=False)]))
        numbers.append(torch.cat([torch.full_like(image.places, k) for k, image in enumerate(images)]))
    at = pad_sequence(places, True, -1)
    slots = torch.arange(max(text.counts), device=device)
    merged = pad_sequence(blocks, True, -1)[:, None, :] == slots[:, None]
    one = len({tuple(grid) for grid in grids}) == 1 and grids[0][0] == 1 and all(len(own) == 1 for own in per_sample)
    return Images(
        stacks=[Stack("image", layers_of(model, tower), "image", at, {"image": at})],
        valid=at >= 0,
        patches=at >= 0,
        weights=merged.to(torch.float32) / merge**2,
        boxes=pad_sequence(boxes, True, 0),
        images=pad_sequence(numbers, True, 0),
        grid=(grids[0][1], grids[0][2]) if one else None,
        merging=tower.merger,
        merging_places=at,
    )


def _pack(grid: list[int], merge: int, size: int, first: int, moved: Tensor, device: torch.device) -> _Packed:
    frames, rows, cols = grid
    order = torch.arange(frames * rows * cols, device=device)
    order = order.view(frames, rows // merge, cols // merge, merge, merge).transpose(2, 3)  # frame, row, column
    order = order.reshape(-1)
    boxes = grid_boxes((rows, cols), (size, size), device).repeat(frames, 1)
    return _Packed(moved[first + order], order // merge**2, boxes)


def _moved(model: Any, grids: Tensor) -> Tensor:
    """Return where the tower puts each packed patch; Qwen2.5-VL sorts them by window."""
    tower, unit = model.model.visual, model.model.visual.spatial_merge_size**2
    count = int(grids.prod(1).sum())
    if not hasattr(tower, "fullatt_block_indexes"):
        return torch.arange(count, device=grids.device)
    from transformers.vision_utils import get_vision_window_index

    window, _ = get_vision_window_index(
        grids,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    order = window.to(grids.device)[:, None] * unit + torch.arange(unit, device=grids.device)
    return order.flatten().argsort()


def _images_per_sample(counts: list[int], tokens: list[int]) -> list[list[int]]:
    """Return the numbers of the images of each sample, from the numbers of image tokens that each image needs."""
    found: list[list[int]] = []
    number = 0
    for count in counts:
        own: list[int] = []
        while sum(tokens[k] for k in own) < count and number < len(tokens):
            own.append(number)
            number += 1
        if sum(tokens[k] for k in own) != count:
            raise TraceError(f"the texts have {counts} image tokens, but the images need {tokens}")
        found.append(own)
    if number != len(tokens):
        raise TraceError(f"the texts have {counts} image tokens, but the images need {tokens}")
    return found
