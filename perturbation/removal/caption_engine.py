"""Captions pictures again without some of their patches: every distinct subset once, and only the patches that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption
from perturbation.removal.engine import distinct, image_without


@dataclass(frozen=True)
class CaptionEngine:
    """Captions ``batch_size`` subsets of equally many patches at once, greedily, in up to ``max_length`` sub-words.

    ``removal`` is ``perturbation.removal.engine.Removal.image``: mask | mean.
    """

    model: CLIPMapperCaption
    batch_size: int
    max_length: int
    removal: str = "mask"

    @torch.inference_mode()
    def captions(self, pixels: Tensor, kept: Tensor, whole: Sequence[str]) -> list[list[str]]:
        """M captions of each of B pictures.

        Args:
            pixels: [B, 3, H, W].
            kept: bool [B, M, P], true where a patch stays; the class token always does.
            whole: The B captions of the pictures as they are.
        """
        vision = self.model.encoder.vision
        embedded = vision.embed(pixels)
        owners, subsets, places = distinct(torch.cat([kept.new_ones(*kept.shape[:2], 1), kept], 2))
        said = [whole[owner] for owner in owners.tolist()]
        counts = subsets.sum(1)
        for count in sorted({*counts.tolist()} - {vision.token_count}):
            for rows in (counts == count).nonzero()[:, 0].split(self.batch_size):
                image = image_without(vision, pixels, embedded, owners[rows], subsets[rows], self.removal)
                for row, ids in zip(rows.tolist(), greedy(self.model, image, self.max_length), strict=True):
                    said[row] = self.model.vocabulary.text(ids)
        return [[said[place] for place in row] for row in places.tolist()]
