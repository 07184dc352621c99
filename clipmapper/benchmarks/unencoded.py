"""Random features in place of an encoder's, so that a start at full size is measured without hours of encoding.

``python -m clipmapper.benchmarks.unencoded experiment=paper_vqa data.root=FOLDER/vqav2 paths.cache=CACHE`` takes the
overrides of ``train`` and fills CACHE, whose features are of no use but for :mod:`clipmapper.benchmarks.starting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from clipmapper.benchmarks.starting import main
from clipmapper.encoder.load import FrozenClip
from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.nn import Tokens


@contextmanager
def unencoded() -> Iterator[None]:
    """Let every encoder return random features at once; images are read and decoded, and texts tokenized, as usual."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 22, generator=draw)

    def random(shape: tuple[int, int, int]) -> Tensor:
        """Return noise, [B, N, D], in which no two items of a batch are equal."""
        start = int(torch.randint(len(noise) // 2, (1,), generator=draw))
        size = shape[1] * shape[2]
        return torch.stack(
            [noise[(start + k * 1009) % (len(noise) - size) :][:size].view(shape[1:]) for k in range(shape[0])]
        )

    def images(tower: VisionTower, pixels: Tensor) -> Tokens:
        valid = torch.ones(len(pixels), tower.token_count, dtype=torch.bool)
        return Tokens(random((*valid.shape, tower.width)), valid, torch.arange(valid.shape[1]).expand(valid.shape))

    def texts(tower: TextTower, ids: Tensor, valid: Tensor) -> Tokens:
        return Tokens(random((*ids.shape, tower.width)), valid, torch.arange(ids.shape[1]).expand(ids.shape))

    def pixels(_: FrozenClip, read: list[Image.Image]) -> Tensor:
        return torch.zeros(len(read), 1)

    with (
        patch.object(VisionTower, "forward", images),
        patch.object(TextTower, "forward", texts),
        patch.object(FrozenClip, "pixels", pixels),
    ):
        yield


if __name__ == "__main__":
    with unencoded():
        main()
