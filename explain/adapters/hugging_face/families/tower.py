"""Language models that read the patches of a vision tower, as they are or merged in squares.

LLaVA and PaliGemma read each patch, Gemma 3 and InternVL the means or joined features of squares of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.hugging_face.families.decoder import Images, Sequences, decoder_plan, sequences
from explain.adapters.hugging_face.plan import Plan, Stack, layers_of, patch_size, prefix_tokens
from explain.targets import Answer
from explain.trace import TraceError
from explain.traced import grid_boxes


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a model in which each image has the same number of image tokens.

    Raises:
        TraceError: The tower is read in a way that cannot be traced, or the image tokens do not match the images.
    """
    text = sequences(model, inputs, answer, model.config.image_token_id)
    pixels, config = inputs["pixel_values"], model.config
    frames = Frames.of(model, model.model.vision_tower, pixels, getattr(config, "vision_feature_layer", -1))
    strategy = getattr(config, "vision_feature_select_strategy", "full" if frames.prefix == 0 else "default")
    if (strategy == "default") != (frames.prefix == 1):
        raise TraceError(f"vision_feature_select_strategy={strategy!r} of a tower with {frames.prefix} class tokens")
    merge = merged_patches(model, frames)
    square = squares(frames.grid, merge)
    per_sample = images_per_sample(text.counts, len(square), len(pixels))
    weights = [torch.block_diag(*[square] * count) for count in per_sample]
    images = tower_images(frames, per_sample, weights, text)
    if model.config.model_type == "internvl":
        images = replace(images, merging=model.model.multi_modal_projector, merging_tokens=partial(unjoined, merge))
    return decoder_plan(model, text, images, answer, tokenizer, model.model.language_model)


def merged_patches(model: Any, frames: Frames) -> int:
    """Return the side of the square of patches that become one image token."""
    config = model.config
    if config.model_type == "gemma3":
        return int(frames.grid[0] // config.mm_tokens_per_image**0.5)
    return round(1 / getattr(config, "downsample_ratio", 1))


def unjoined(side: int, joined: Tensor) -> Tensor:
    """Return the patches [frames, patches, D] that are joined to squares, [frames, squares, side² · D]."""
    count = round(joined.shape[1] ** 0.5)
    squares = joined.view(len(joined), count, count, side, side, -1)  # InternVL's images are square
    return squares.transpose(2, 3).reshape(len(joined), (count * side) ** 2, -1)


@dataclass(frozen=True, eq=False)
class Frames:
    """The images (or tiles of images) that a vision tower reads, each [3, H, W], and how it holds their tokens."""

    blocks: Sequence[tuple[str, nn.Module]]  #: the layers that its output depends on
    grid: tuple[int, int]  #: rows and columns of the patches
    patch: tuple[int, int]  #: height and width of a patch in pixels
    prefix: int  #: number of tokens before the patches

    @classmethod
    def of(cls, model: nn.Module, tower: Any, pixels: Tensor, feature_layer: int | list[int] = -1) -> Frames:
        """Return the frames of pixels [..., H, W], read at the hidden state of ``feature_layer``.

        Raises:
            TraceError: Hidden states of several layers are joined.
        """
        if not isinstance(feature_layer, int):
            raise TraceError(f"vision_feature_layer={feature_layer}: hidden states of several layers cannot be traced")
        blocks = layers_of(model, tower)
        used = feature_layer if feature_layer >= 0 else len(blocks) + 1 + feature_layer
        patch = patch_size(tower.config)
        grid = (pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1])
        return cls(blocks[:used], grid, patch, prefix_tokens(tower))

    @property
    def patches(self) -> int:
        """Number of patches of a frame."""
        return self.grid[0] * self.grid[1]


def squares(grid: tuple[int, int], side: int) -> Tensor:
    """Return the map from patches to squares of ``side`` × ``side`` patches, both row by row, [squares, patches]."""
    row, col = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    square = ((row // side) * (grid[1] // side) + col // side).flatten()
    return (square == torch.arange(int(square.max()) + 1)[:, None]).float() / side**2


def images_per_sample(counts: Sequence[int], slots: int, images: int) -> list[int]:
    """Return the number of images of each sample, if each image has the same number of slots.

    Raises:
        TraceError: The image tokens of the texts do not match the images.
    """
    if sum(counts) != slots * images or any(count % slots for count in counts):
        raise TraceError(f"the texts have {counts} image tokens, but {images} images need {slots} each")
    return [count // slots for count in counts]


def tower_images(
    frames: Frames,
    per_sample: Sequence[int],
    weights: Sequence[Tensor],
    text: Sequences,
    merging: nn.Module | None = None,
    learnt: int = 0,
) -> Images:
    """Return the images of a batch that a vision tower reads as frames, in the order of the samples.

    The columns of a sample are learnt tokens that are no part of a frame, the class tokens of its frames, and then the
    patches of each frame.

    Args:
        frames: The frames.
        per_sample: Number of frames of each sample.
        weights: For each sample the map from its learnt tokens and patches to its image tokens.
        text: The texts with the image tokens.
        merging: Module whose first input are the patches that are merged, [frames, patches, D].
        learnt: Number of learnt tokens between patches, such as the ends of rows.
    """
    device, most = text.slots.device, max(per_sample)
    first = torch.tensor([0, *per_sample[:-1]], device=device).cumsum(0)[:, None]
    number = torch.arange(most, device=device)
    absent = (number >= torch.tensor(per_sample, device=device)[:, None])[:, :, None]
    start = ((first + number) * (frames.prefix + frames.patches))[:, :, None]
    of_class = (start + torch.arange(frames.prefix, device=device)).masked_fill(absent, -1).flatten(1)
    of_patch = start + frames.prefix + torch.arange(frames.patches, device=device)
    of_patch = of_patch.masked_fill(absent, -1).flatten(1)
    outside = of_class.new_full((len(per_sample), learnt), -1)  # learnt tokens have no place in the tower
    places = torch.cat([outside, of_class, of_patch], 1)
    before = learnt + of_class.shape[1]
    whole = torch.zeros(len(places), max(text.counts), places.shape[1], device=device)
    for sample, own in enumerate(weights):
        whole[sample, : len(own), :learnt] = own[:, :learnt].to(device)
        whole[sample, : len(own), before : before + own.shape[1] - learnt] = own[:, learnt:].to(device)
    valid = places >= 0
    valid[:, :learnt] = True
    boxes = grid_boxes(frames.grid, frames.patch, device).repeat(most, 1)
    merged = ((first + number) * frames.patches)[:, :, None] + torch.arange(frames.patches, device=device)
    merged = torch.cat([places.new_full((len(places), before), -1), merged.masked_fill(absent, -1).flatten(1)], 1)
    return Images(
        stacks=[Stack("image", frames.blocks, "image", places, {"image": places})],
        valid=valid,
        patches=valid & (torch.arange(places.shape[1], device=device) >= before),
        weights=whole,
        boxes=boxes.expand(len(places), -1, -1).masked_fill((of_patch < 0)[:, :, None], 0),
        images=number.repeat_interleave(frames.patches).expand(len(places), -1),
        grid=frames.grid if set(per_sample) == {1} else None,
        merging=merging,
        merging_places=merged,
    )
