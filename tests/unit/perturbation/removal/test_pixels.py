"""Fills of patches of preprocessed photos, compared with loops over the photos' own pixels."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from models import random_encoder
from slow_fills import MEAN, STD, hidden_pixels, normalised, photo, slow_fill

from clipmapper.nn import TokenSubset
from perturbation.config import ImageRemovalConfig
from perturbation.removal.engine import image_without
from perturbation.removal.filling import Fill
from perturbation.removal.pixels import ImageRemoval, PatchFiller, patch_filler

FILLS: tuple[Fill, ...] = get_args(Fill)
NAMES = ("3/17", "3/18", "3/19")
NEIGHBOURS = {(i, j): (1 / 6 if 0 in (i, j) else 1 / 12) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}


def filler(how: Fill, chosen: tuple[int, ...] = (0, 1, 2)) -> PatchFiller:
    pixels = random_encoder().pixels([photo(k) for k in chosen])
    return PatchFiller(random_encoder().vision, pixels, how, [NAMES[k] for k in chosen])


def random_kept(several: int) -> torch.Tensor:
    kept = torch.rand(several, 9, generator=torch.Generator().manual_seed(4)) < 0.5
    kept[-1] = False
    return kept


@pytest.mark.parametrize("how", FILLS)
def test_removed_patches_have_the_colours_of_the_loop(how: Fill) -> None:
    owner, kept = torch.tensor([0, 2, 1, 2, 0]), random_kept(5)
    found = filler(how).fills(owner, kept)
    for k, image in enumerate(owner.tolist()):
        hidden = torch.from_numpy(hidden_pixels(kept[k].tolist()))
        expected = normalised(slow_fill(photo(image), kept[k].tolist(), how, NAMES[image]))
        close = 2 / 255 / min(STD) if how == "blur" else 1e-5  # Pillow blurs 8-bit colours
        torch.testing.assert_close(found[k][:, hidden].double(), expected[:, hidden], atol=close, rtol=0)


def test_zero_is_black_and_not_the_mean_colour_of_the_training_data() -> None:
    found = filler("zero").fills(torch.tensor([1]), torch.zeros(1, 9, dtype=torch.bool))
    black = random_encoder().pixels([photo(0).point(lambda _: 0)])
    torch.testing.assert_close(found, black)


def test_before_the_noise_a_removed_pixel_is_the_weighted_mean_of_its_neighbours() -> None:
    """The equations of ROAD (Rong et al. 2022, section 5.1), checked without solving them."""
    kept = torch.tensor([[True, False, False, True, False, True, False, True, False]])
    hidden = hidden_pixels(kept[0].tolist())
    seen = filler("noisy_linear").fills(torch.tensor([1]), kept)[0].double()
    std, mean = (torch.tensor(values).double()[:, None, None] for values in (STD, MEAN))
    noise = np.random.default_rng(list(NAMES[1].encode())).normal(0, 0.01, (24, 24, 3))
    colours = np.array(photo(1)) / 255
    colours[hidden] = ((seen * std + mean).permute(1, 2, 0).numpy() - noise)[hidden]
    for y, x in zip(*hidden.nonzero(), strict=True):
        around = [(y + i, x + j, w) for (i, j), w in NEIGHBOURS.items() if 0 <= y + i < 24 and 0 <= x + j < 24]
        expected = sum(w * colours[row, col] for row, col, w in around) / sum(w for *_, w in around)
        np.testing.assert_allclose(colours[y, x], expected, atol=1e-6)


@pytest.mark.parametrize("how", FILLS)
def test_a_fill_does_not_depend_on_the_images_and_subsets_beside_it(how: Fill) -> None:
    owner, kept = torch.tensor([2, 0, 1, 2]), random_kept(4)
    together = filler(how).fills(owner, kept)
    for k, image in enumerate(owner.tolist()):
        assert torch.equal(filler(how, (image,)).fills(torch.tensor([0]), kept[k : k + 1])[0], together[k])


@pytest.mark.parametrize("how", ["noise", "noisy_linear"])
def test_noise_depends_on_the_seed_and_the_sample(how: ImageRemoval) -> None:
    pixels, kept = random_encoder().pixels([photo(0)]), torch.zeros(1, 9, dtype=torch.bool)

    def fills(seed: int, sample: int) -> torch.Tensor:
        made = patch_filler(random_encoder().vision, pixels, how, seed, [sample])
        assert made is not None
        return made.fills(torch.tensor([0]), kept)

    assert torch.equal(fills(3, 17), fills(3, 17))
    assert not torch.equal(fills(3, 17), fills(3, 18))
    assert not torch.equal(fills(3, 17), fills(4, 17))


def test_a_model_that_ignores_removed_patches_is_the_same_with_every_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    vision, pixels = random_encoder().vision, random_encoder().pixels([photo(0), photo(1)])
    kept = torch.tensor([True, True, False, True, False, False, True, True, False, True]).expand(2, -1)
    owner, embedded = torch.tensor([0, 1]), vision.embed(pixels)

    def read(how: ImageRemoval) -> torch.Tensor:
        found = image_without(vision, embedded, owner, kept, patch_filler(vision, pixels, how, 0, [5, 6]))
        return vision.pooled(found)

    ways: tuple[ImageRemoval, ...] = ("mask", *FILLS)
    different = torch.stack([read(how) for how in ways])
    assert (torch.cdist(different.transpose(0, 1), different.transpose(0, 1)) > 1e-3).sum() == 2 * 6 * 5
    encode = vision.encode
    monkeypatch.setattr(vision, "encode", lambda x, subset=None: encode(x, subset or TokenSubset.from_mask(kept)))
    for how in FILLS:
        assert torch.equal(read(how), read("mask"))


def test_the_config_knows_every_way() -> None:
    for how in get_args(ImageRemoval):
        assert ImageRemovalConfig(image=how).image == how
