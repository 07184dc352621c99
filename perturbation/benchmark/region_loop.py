"""A slow way to compare with: region perturbation as in other libraries, such as Quantus (Hedström et al. 2023).

The regions of one sample's image are removed one after the other from the pixels that the model gets, and the whole
model is run on this sample after each of them. Explainers and directions share nothing. Only tests and benchmarks use
this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from explain.sample.inputs import processed
from perturbation.arrays import Array
from perturbation.pairs.samples import Pair
from perturbation.pairs.units import cells
from perturbation.removal.order import Direction


@torch.inference_mode()
def region_loop(
    model: Any,
    processor: Any,
    pairs: Sequence[Pair],
    scores: Mapping[str, Array],
    grid: tuple[int, int],
    steps: int,
) -> dict[tuple[str, Direction], Array]:
    """Return the similarity of a dual encoder after each step, [B, steps], by explainer and direction.

    Args:
        model: A dual encoder of ``transformers``.
        processor: Its processor.
        pairs: B images and texts.
        scores: The scores of the P cells, [B, P], by explainer.
        grid: Rows and columns of the cells.
        steps: Number of steps; the first one removes nothing, and each of the others one more cell.
    """
    curves: dict[tuple[str, Direction], Array] = {}
    for b, pair in enumerate(pairs):
        inputs = processed(model, processor, [pair.image], pair.text)
        whole = inputs.pop("pixel_values")
        boxes, mean = cells(grid, (0, 0, whole.shape[3], whole.shape[2])), whole.mean((2, 3), keepdim=True)
        for name, each in scores.items():
            rising = np.argsort(each[b])
            for direction in get_args(Direction):
                order, pixels = rising[::-1] if direction == "positive" else rising, whole.clone()
                curve = curves.setdefault((name, direction), np.zeros((len(pairs), steps)))
                for step in range(steps):
                    if step:
                        left, top, right, bottom = boxes[order[step - 1]]
                        pixels[:, :, top:bottom, left:right] = mean
                    made = model(**inputs, pixel_values=pixels)
                    curve[b, step] = float(cosine_similarity(made.image_embeds, made.text_embeds))
    return curves
