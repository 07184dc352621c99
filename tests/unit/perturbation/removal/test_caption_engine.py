"""The captioning engine, compared with a full forward pass of the model for every word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import pictures, random_caption, slow_greedy
from slow_fills import normalised, photo, slow_fill

from clipmapper.encoder.load import TextBatch
from clipmapper.errors import UserError
from clipmapper.nn import TokenSubset
from clipmapper.tasks.caption.model import CLIPMapperCaption
from perturbation.removal.caption_engine import CaptionEngine, CaptionReader, CaptionSamples
from perturbation.removal.pixels import ImageRemoval
from perturbation.removal.reader import Subsets

LENGTH = 6


@pytest.mark.parametrize("removal", ["mask", "mean"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_the_engine_captions_the_kept_patches(name: str, removal: ImageRemoval) -> None:
    model, pixels = random_caption(name, "learnt"), pictures(3).double()
    make_patches_matter(model)
    kept = torch.rand(3, 5, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    kept[:, 0], kept[:, 3] = True, kept[:, 2]
    found = CaptionEngine(model, 2, LENGTH, removal).captions(pixels, kept, ["x", "y", "z"])
    for b in range(3):
        assert found[b][0] == "xyz"[b]  # nothing is removed, so the given caption is returned
        for m in range(1, 5):
            expected = slow_masked(model, pixels[b], kept[b, m], removal)
            assert found[b][m] == model.vocabulary.text(expected)
    assert len({text for row in found for text in row}) >= 3 + 2  # not all captions are equal


@pytest.mark.parametrize("how", ["zero", "noise", "noisy_linear"])
def test_filled_patches_are_captioned_as_in_a_photo_filled_by_a_loop(how: ImageRemoval) -> None:
    model, photos = random_caption("b", "learnt", seed=2), [photo(k) for k in range(3)]
    make_patches_matter(model)
    kept = torch.rand(3, 4, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    pixels = model.encoder.pixels(photos).double()
    found = CaptionEngine(model, 2, LENGTH, how, seed=8).captions(pixels, kept, ["x", "y", "z"], [30, 31, 32])
    for b in range(3):
        for m in range(4):
            filled = normalised(slow_fill(photos[b], kept[b, m].tolist(), how, f"8/{30 + b}"))
            assert found[b][m] == model.vocabulary.text(slow_greedy(model, filled[None], LENGTH))
    assert len({text for row in found for text in row}) > 5  # not all captions are equal


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_engine_reads_given_captions_on_the_kept_patches(name: str) -> None:
    model, pixels = random_caption(name, "learnt"), pictures(2).double()
    kept = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    kept[:, 0], kept[:, 3] = True, kept[:, 2]
    captions = [model.vocabulary.ids[:3], model.vocabulary.ids[2:4]]
    found = CaptionEngine(model, 3, LENGTH).token_probabilities(pixels, kept, captions)
    assert found.shape == (2, 4, 3)
    for b, caption in enumerate(captions):
        ids = torch.tensor([[model.vocabulary.start, *caption]])
        text = TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), 0)
        for m in range(4):
            subset = TokenSubset.from_mask(torch.cat([torch.tensor([True]), kept[b, m]])[None])
            logits = model(pixels[b : b + 1], text, image_subset=subset)[0, :-1]
            expected = [row.softmax(0)[model.vocabulary.ids.index(i)] for row, i in zip(logits, caption, strict=True)]
            assert found[b, m, : len(caption)].tolist() == pytest.approx([float(p) for p in expected], rel=1e-5)


def make_patches_matter(model: CLIPMapperCaption) -> None:
    for parameter, tensor in model.trained.named_parameters():
        if parameter.endswith(("query.weight", "out.weight")):
            tensor.mul_(8)


def slow_masked(model: CLIPMapperCaption, pixels: torch.Tensor, kept: torch.Tensor, removal: str) -> list[int]:
    if removal == "mean":
        blanked = pixels.clone()
        for patch in (~kept).nonzero()[:, 0].tolist():
            y, x = 8 * (patch // 3), 8 * (patch % 3)
            blanked[:, y : y + 8, x : x + 8] = pixels.mean((1, 2))[:, None, None]
        return slow_greedy(model, blanked[None], LENGTH)
    subset = TokenSubset(torch.arange(10)[None], torch.cat([torch.tensor([True]), kept])[None])

    def masked(image: torch.Tensor, batch: TextBatch) -> torch.Tensor:
        return model(image, batch, image_subset=subset)

    masked.vocabulary = model.vocabulary  # type: ignore[attr-defined]
    return slow_greedy(masked, pixels[None], LENGTH)


def test_removing_words_is_refused_for_captions() -> None:
    model, pixels = random_caption("b", "none"), pictures(2).double()
    reader = CaptionReader(CaptionEngine(model, 2, LENGTH))
    whole = CaptionSamples(pixels, [["a cat"], ["a dog", "a hat"]], ["x", "y"])
    assert reader.read(whole, Subsets()).said.tolist() == [["x"], ["y"]]
    with pytest.raises(UserError, match="task=caption: the model's input has no words that can be removed"):
        reader.read(whole, Subsets(text=np.ones((2, 1, 5), dtype=bool)))
