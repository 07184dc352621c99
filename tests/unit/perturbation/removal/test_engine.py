"""The engine against the plain loop: one sample, one subset, a full forward in which removed tokens are masked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_encoder, random_vqa, samples
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.nn.tokens import TokenSubset
from perturbation.benchmark.plain_loop import plain_logits
from perturbation.removal.engine import Engine, Modality, Removal

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
    """bool [B, M, n]; the first removes nothing, the last all that may go, and the second is the third's double."""
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


@settings(max_examples=40, deadline=None)
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
    reading = engine.read(engine.whole(pixels, questions), modality, kept, asked)
    logits = plain_logits(model, pixels, questions, modality, kept)
    wanted = logits.gather(2, asked[:, None, None].expand(-1, several, 1))[:, :, 0].sigmoid()
    torch.testing.assert_close(reading.probability, wanted, **CLOSE)
    best = logits.gather(2, reading.answers[:, :, None])[:, :, 0]
    torch.testing.assert_close(best, logits.amax(2), **CLOSE)  # the same answer, up to a tie to rounding


def test_dropped_words_are_a_shorter_question() -> None:
    model = random_vqa("b", positions="learnt")
    pixels, questions = samples(4)
    kept = random_masks(questions, "text", 5, seed=3)
    asked = torch.tensor([0, 1, 2, 3])
    engine = Engine(model, 4, Removal(text="drop"))
    reading = engine.read(engine.whole(pixels, questions), "text", kept, asked)
    for b in range(4):
        for m in range(5):
            ids = questions.ids[b, kept[b, m]][None]
            logits = model(pixels[b : b + 1], TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), 0))
            torch.testing.assert_close(reading.probability[b, m], logits[0, asked[b]].sigmoid(), **CLOSE)


def test_blanked_patches_are_a_picture_with_its_mean_colour_there() -> None:
    model = random_vqa("a")
    pixels, questions = samples(3)
    kept = random_masks(questions, "image", 4, seed=5)
    asked = torch.tensor([0, 1, 2])
    engine = Engine(model, 5, Removal(image="mean"))
    reading = engine.read(engine.whole(pixels, questions), "image", kept, asked)
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


@pytest.mark.parametrize("modality", ["image", "text"])
def test_every_distinct_subset_is_read_once_and_only_its_tokens(modality: Modality) -> None:
    model = random_vqa("b")
    pixels, questions = samples(4)
    kept = random_masks(questions, modality, 5, seed=1)
    engine = Engine(model, 3)
    whole = engine.whole(pixels, questions)
    seen: list[tuple[int, ...]] = []
    tower = getattr(model.encoder, "vision" if modality == "image" else "text")
    encode = tower.encode

    def counting(x: Tensor, subset: TokenSubset) -> object:
        assert bool(subset.valid.all())
        seen.extend((len(row), *row.tolist()) for row in subset.index)
        return encode(x, subset)

    tower.encode = counting
    try:
        engine.read(whole, modality, kept.repeat(1, 2, 1), whole.answers)
    finally:
        del tower.encode
    present = kept[:, :1]
    requests = [tuple(mask.nonzero()[:, 0].tolist()) for b in range(4) for mask in kept[b].unique(dim=0)]
    removed = [(len(r), *r) for r, full in zip(requests, _full(kept, present), strict=True) if not full]
    assert sorted(seen) == sorted(removed)


def _full(kept: Tensor, present: Tensor) -> list[bool]:
    return [bool((mask == present[b, 0]).all()) for b in range(len(kept)) for mask in kept[b].unique(dim=0)]
