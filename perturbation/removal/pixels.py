"""Fills of the removed patches of preprocessed images, the input of CLIPmapper's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.towers import VisionTower
from explain.traced import grid_boxes
from perturbation.arrays import Array
from perturbation.removal.filling import Fill, Filler

ImageRemoval = Literal["mask", Fill]  #: how a patch is removed: nothing attends to it, or its pixels are filled


class PatchFiller:
    """Fills of the removed patches of B preprocessed images (:class:`~perturbation.removal.filling.Filler`).

    Fills are made in the colours of the photo as the encoder sees it, resized and cropped: from 0 (black) to 1, before
    each channel is normalised. They are then normalised as the photo is, so ``zero`` is black, and not 0 after the
    normalisation, which is a mean colour of the encoder's training data. The mean colour is the same in both spaces.

    Args:
        vision: The image encoder.
        pixels: The images after the normalisation, [B, 3, H, W].
        how: How removed patches are filled.
        names: B names, from which the random colours and the noise of each image are drawn; ``mean`` needs none.
    """

    def __init__(self, vision: VisionTower, pixels: Tensor, how: Fill, names: Sequence[str]) -> None:
        self.pixels, self.how = pixels, how
        if how == "mean":
            return
        visual = vision.visual
        self._mean, self._std = np.array(visual.preprocess_cfg["mean"]), np.array(visual.preprocess_cfg["std"])
        boxes = grid_boxes(vision.grid_size, vision.patch_size, torch.device("cpu")).numpy()
        colours = pixels.permute(0, 2, 3, 1).double().cpu().numpy() * self._std + self._mean
        self._fillers = [Filler(each, boxes, how, name) for each, name in zip(colours, names, strict=True)]
        none = np.zeros(len(boxes), dtype=np.bool_)
        everywhere = None if how == "noisy_linear" else [each.without(none) for each in self._fillers]
        self._background = None if everywhere is None else self._normalised(everywhere)

    def fills(self, owner: Tensor, kept: Tensor) -> Tensor:
        """Return what is seen in the removed patches of U subsets, [U, 3, H, W].

        The values in kept patches have no meaning.

        Args:
            owner: int [U], the image of each subset.
            kept: Kept patches, bool [U, P].
        """
        if self.how == "mean":
            whole = self.pixels[owner]
            return whole.mean((2, 3), keepdim=True).expand_as(whole)
        if self._background is not None:
            return self._background[owner]
        pairs = zip(owner.tolist(), kept.cpu().numpy(), strict=True)
        return self._normalised([self._fillers[b].without(mask) for b, mask in pairs])

    def _normalised(self, colours: Sequence[Array]) -> Tensor:
        """Return images with colours from 0 to 1, [H, W, 3] each, as the encoder's input, [B, 3, H, W]."""
        return torch.from_numpy((np.stack(colours) - self._mean) / self._std).permute(0, 3, 1, 2).to(self.pixels)


def patch_filler(
    vision: VisionTower, pixels: Tensor, removal: ImageRemoval, seed: int, ids: Sequence[int]
) -> PatchFiller | None:
    """Return the fills for a removal; None for ``mask``. Random colours and noise depend on ``seed`` and the ids."""
    return None if removal == "mask" else PatchFiller(vision, pixels, removal, [f"{seed}/{each}" for each in ids])
