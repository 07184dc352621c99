"""The engine compared with the plain loop: one full forward pass per sample and subset, with removed tokens masked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_encoder, random_vqa, samples
from slow_fills import normalised, photo, slow_fill
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.nn import TokenSubset
from perturbation.benchmark.plain_loop import plain_logits
from perturbation.removal.engine import Engine, Removal
from perturbation.removal.pixels import ImageRemoval
from perturbation.removal.reader import Modality

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CASES = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["cls", "eot", "token"]),
    st.sampled_from(["none", "learnt"]),
    st.sampled_from(["image", "text"]),
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_masks(questions: TextBatch, modality: str, several: int, seed: int) -> Tensor:
    """Return kept masks, bool [B, M, n].

    The first mask removes nothing, the last one all removable tokens; the second mask equals the third one.
    """
    draw = torch.Generator().manual_seed(seed)
    if modality == "image":
        present = torch.ones(len(questions.ids), random_encoder().vision.token_count, dtype=torch.bool)
        protected = torch.zeros_like(present)
    else:
        present = questions.valid
        protected = torch.zeros_like(present).scatter(1, (present.sum(1) - 1)[:, None], True)
    protected = protected.index_fill(1, torch.tensor([0]), True)
    share = torch.rand(several, generator=draw)[None, :, None]
    kept = torch.rand(len(present), several, present.shape[1], generator=draw) < share
    kept[:, 0], kept[:, -1] = True, False
    if several > 3:
        kept[:, 1] = kept[:, 2]
    return (kept | protected[:, None]) & present[:, None]


@settings(max_examples=25, deadline=None)
@given(case=CASES, several=st.integers(2, 6), batch_size=st.integers(1, 20), seed=st.integers(0, 2**20))
def test_readings_equal_the_plain_loop(
    case: tuple[str, str, str, Modality], several: int, batch_size: int, seed: int
) -> None:
    name, readout, positions, modality = case
    model = random_vqa(name, readout, positions, seed % 7)
    pixels, questions = samples(4, seed)
    kept = random_masks(questions, modality, several, seed)
    asked = torch.tensor([seed % 5, 1, 2, 3])
    engine = Engine(model, batch_size)
    image, text = (kept if modality == name else None for name in ("image", "text"))
    reading = engine.read(engine.cache(pixels, questions), image, text, asked)
    logits = plain_logits(model, pixels, questions, image, text)
    expected = logits.gather(2, asked[:, None, None].expand(-1, several, 1))[:, :, 0].sigmoid()
    torch.testing.assert_close(reading.probability, expected, **CLOSE)
    best = logits.gather(2, reading.answers[:, :, None])[:, :, 0]
    torch.testing.assert_close(best, logits.amax(2), **CLOSE)  # the same answer, except for a tie up to rounding


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(case=CASES, several=st.integers(2, 6), batch_size=st.integers(1, 20), seed=st.integers(0, 2**20))
def test_removal_from_both_modalities_equals_the_plain_loop(
    case: tuple[str, str, str, Modality], several: int, batch_size: int, seed: int
) -> None:
    name, readout, positions, _ = case
    model = random_vqa(name, readout, positions, seed % 7)
    pixels, questions = samples(4, seed)
    image, text = (random_masks(questions, modality, several, seed + k) for k, modality in enumerate(("image", "text")))
    text = text.flip(1)  # so that some subsets remove from one modality only
    asked = torch.tensor([seed % 5, 1, 2, 3])
    engine = Engine(model, batch_size)
    reading = engine.read(engine.cache(pixels, questions), image, text, asked)
    logits = plain_logits(model, pixels, questions, image, text)
    expected = logits.gather(2, asked[:, None, None].expand(-1, several, 1))[:, :, 0].sigmoid()
    torch.testing.assert_close(reading.probability, expected, **CLOSE)


@pytest.mark.parametrize("name", ["a", "b"])
def test_requests_of_both_modalities_change_no_bit_of_those_of_one(name: str) -> None:
    """Requests that remove from both modalities are read in separate batches."""
    model = random_vqa(name)
    pixels, questions = samples(4)
    image, text = (random_masks(questions, modality, 6, seed=2) for modality in ("image", "text"))
    engine = Engine(model, 5)
    inputs = engine.cache(pixels, questions)
    alone = [engine.read(inputs, *masks, inputs.answers).probability for masks in ((image, None), (None, text))]
    whole_image, whole_text = torch.ones_like(image), questions.valid[:, None].expand_as(text)
    images, texts = torch.cat([image, whole_image, image], 1), torch.cat([whole_text, text, text], 1)
    together = engine.read(inputs, images, texts, inputs.answers).probability
    assert torch.equal(together[:, :12], torch.cat(alone, 1))


def test_without_masks_the_full_samples_are_read() -> None:
    model = random_vqa("b")
    inputs = Engine(model, 3).cache(*samples(4))
    reading = Engine(model, 3).read(inputs, None, None, inputs.answers)
    assert torch.equal(reading.answers[:, 0], inputs.answers)
    assert torch.equal(reading.probability[:, 0], inputs.logits.amax(1).sigmoid())


def test_dropping_words_equals_reading_a_shorter_question() -> None:
    model = random_vqa("b", positions="learnt")
    pixels, questions = samples(4)
    kept = random_masks(questions, "text", 5, seed=3)
    asked = torch.tensor([0, 1, 2, 3])
    engine = Engine(model, 4, Removal(text="drop"))
    reading = engine.read(engine.cache(pixels, questions), None, kept, asked)
    for b in range(4):
        for m in range(5):
            ids = questions.ids[b, kept[b, m]][None]
            logits = model(pixels[b : b + 1], TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), 0))
            torch.testing.assert_close(reading.probability[b, m], logits[0, asked[b]].sigmoid(), **CLOSE)


def test_removal_by_mean_equals_an_image_with_its_mean_colour_in_these_patches() -> None:
    model = random_vqa("a")
    pixels, questions = samples(3)
    kept = random_masks(questions, "image", 4, seed=5)
    asked = torch.tensor([0, 1, 2])
    engine = Engine(model, 5, Removal(image="mean"))
    reading = engine.read(engine.cache(pixels, questions), kept, None, asked)
    for b in range(3):
        one = TextBatch(questions.ids[b : b + 1], questions.valid[b : b + 1], 0)
        for m in range(4):
            blanked = pixels[b].clone()
            for patch in range(9):
                if not kept[b, m, 1 + patch]:
                    y, x = 8 * (patch // 3), 8 * (patch % 3)
                    blanked[:, y : y + 8, x : x + 8] = pixels[b].mean((1, 2))[:, None, None]
            logits = model(blanked[None], one)
            torch.testing.assert_close(reading.probability[b, m], logits[0, asked[b]].sigmoid(), **CLOSE)


@pytest.mark.parametrize("how", ["zero", "noise", "noisy_linear"])
@pytest.mark.parametrize("batch_size", [2, 32])
def test_filled_patches_equal_a_photo_filled_by_a_loop(how: ImageRemoval, batch_size: int) -> None:
    model = random_vqa("b")
    photos, questions = [photo(k) for k in range(3)], samples(3)[1]
    kept = random_masks(questions, "image", 4, seed=5)
    asked = torch.tensor([0, 1, 2])
    engine = Engine(model, batch_size, Removal(image=how, seed=8))
    inputs = engine.cache(model.encoder.pixels(photos), questions, [30, 31, 32])
    reading = engine.read(inputs, kept, None, asked)
    for b in range(3):
        one = TextBatch(questions.ids[b : b + 1], questions.valid[b : b + 1], 0)
        for m in range(4):
            filled = normalised(slow_fill(photos[b], kept[b, m, 1:].tolist(), how, f"8/{30 + b}")).float()
            logits = model(filled[None], one)
            torch.testing.assert_close(reading.probability[b, m], logits[0, asked[b]].sigmoid(), **CLOSE)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_every_distinct_subset_is_read_once_without_its_removed_tokens(modality: Modality) -> None:
    model = random_vqa("b")
    pixels, questions = samples(4)
    kept = random_masks(questions, modality, 5, seed=1)
    engine = Engine(model, 3)
    inputs = engine.cache(pixels, questions)
    twice = kept.repeat(1, 2, 1)
    seen: list[tuple[int, ...]] = []
    tower = getattr(model.encoder, "vision" if modality == "image" else "text")
    encode = tower.encode

    def counting(x: Tensor, subset: TokenSubset) -> object:
        assert bool(subset.valid.all())
        seen.extend((len(row), *row.tolist()) for row in subset.index)
        return encode(x, subset)

    tower.encode = counting
    try:
        image, text = (twice if modality == name else None for name in ("image", "text"))
        engine.read(inputs, image, text, inputs.answers)
    finally:
        del tower.encode
    present = kept[:, :1]
    requests = [tuple(mask.nonzero()[:, 0].tolist()) for b in range(4) for mask in kept[b].unique(dim=0)]
    removed = [(len(r), *r) for r, full in zip(requests, _full(kept, present), strict=True) if not full]
    assert sorted(seen) == sorted(removed)


def _full(kept: Tensor, present: Tensor) -> list[bool]:
    return [bool((mask == present[b, 0]).all()) for b in range(len(kept)) for mask in kept[b].unique(dim=0)]
