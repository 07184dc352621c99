"""Relevance of patches on a photo's grid, and the part of a photo that a model sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from explain.sample.traced import WHOLE, Box, TracedSample, View

Array = NDArray[np.float64]


def photo_maps(sample: TracedSample, scores: Tensor) -> list[Array]:
    """Return the relevance of each photo's patches, [rows, cols].

    Patches of several views of one photo are added on the grid of the finest view: each gives a cell the share of its
    score that is the share of its area in the cell. What lies outside the photo (padding) is left out.

    Args:
        sample: The sample.
        scores: Scores of the patches, [P].
    """
    traced = sample.traced
    if not traced.patches:
        return []
    real = traced.removable[0, traced.trace.span("image")][-traced.patches :].cpu()
    scores = scores.detach().double().cpu()[real]
    if traced.boxes is None:
        raise ValueError("the places of the patches are not known, so they cannot be drawn on the image")
    boxes = (traced.boxes if traced.boxes.ndim == 2 else traced.boxes[0]).double().cpu()[real]
    numbers = torch.zeros(len(scores), dtype=torch.long)
    if traced.images is not None:
        numbers = (traced.images if traced.images.ndim == 1 else traced.images[0]).cpu()[real]
    return [_photo_map(photo, sample.views, numbers, boxes, scores) for photo in range(len(sample.photos))]


def _photo_map(photo: int, views: Sequence[View], numbers: Tensor, boxes: Tensor, scores: Tensor) -> Array:
    own = [number for number, view in enumerate(views) if view.photo == photo and bool((numbers == number).any())]
    if len(own) == 1 and views[own[0]].box == WHOLE:
        here = boxes[numbers == own[0]]
        rows, cols = len(here[:, 1].unique()), len(here[:, 0].unique())
        return np.asarray(scores[numbers == own[0]].view(rows, cols).numpy())
    placed = torch.cat([_placed(boxes[numbers == number], views[number].box) for number in own])
    every = torch.cat([scores[numbers == number] for number in own])
    width, height = (placed[:, 2:] - placed[:, :2]).amin(0).tolist()
    down = _shares(placed[:, 1], placed[:, 3], round(1 / height))
    across = _shares(placed[:, 0], placed[:, 2], round(1 / width))
    return np.asarray(torch.einsum("p,pr,pc->rc", every, down, across).numpy())


def _placed(boxes: Tensor, view: Box) -> Tensor:
    """Return the boxes of a view's patches as fractions of the photo, [P, 4]."""
    size = boxes[:, 2:].amax(0).repeat(2)
    left, top, right, bottom = view
    return boxes / size * torch.tensor([right - left, bottom - top] * 2) + torch.tensor([left, top] * 2)


def _shares(start: Tensor, stop: Tensor, cells: int) -> Tensor:
    """Return the share of each interval in each of the equal cells of 0..1, [P, cells]."""
    edges = torch.linspace(0, 1, max(cells, 1) + 1, dtype=start.dtype)
    shared = torch.minimum(stop[:, None], edges[1:]) - torch.maximum(start[:, None], edges[:-1])
    return shared.clamp(min=0) / (stop - start)[:, None]


def cropped_box(size: tuple[int, int], resized: int, crop: tuple[int, int]) -> Box:
    """Return the part of a photo that remains, in its pixels, when its short side is resized and its centre cropped.

    Args:
        size: Width and height of the photo.
        resized: The new length of its short side.
        crop: Width and height of the crop.
    """
    short = min(size)
    (left, right), (top, bottom) = (
        _visible_range(length, short, resized, kept) for length, kept in zip(size, crop, strict=True)
    )
    return left, top, right, bottom


def _visible_range(length: int, short: int, resized: int, kept: int) -> tuple[float, float]:
    whole = int(resized * length / short)  # rounded as by torchvision's Resize and CenterCrop
    start = round((whole - kept) / 2)
    return max(0.0, start * length / whole), min(float(length), (start + kept) * length / whole)
