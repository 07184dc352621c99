"""Encoders whose matrix products have a lower precision."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from models import TEXTS, encoded, pictures, random_encoder
from tiny_runs import Tiny

from clipmapper.checkpoint import card, check_fits
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.features.folders import open_store
from clipmapper.nn import KeyValues
from explain.capture.recording import record

PRECISIONS = ("bfloat16", "float16")


def lower(precision: str) -> FrozenClip:
    return copy.deepcopy(random_encoder()).use_precision(precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tokens_are_float32_and_near_those_of_float32(precision: str) -> None:
    exact, rounded = random_encoder(), lower(precision)
    pairs = [(exact.vision(pictures(2)), rounded.vision(pictures(2)))]
    pairs.append((encoded(exact, TEXTS), encoded(rounded, TEXTS)))
    for a, b in pairs:
        assert b.features.dtype == torch.float32
        difference = (a.features - b.features)[a.valid].norm() / a.features[a.valid].norm()
        assert 1e-5 < difference < 0.1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_way_to_encode_has_the_same_precision(precision: str) -> None:
    encoder = lower(precision)
    vision, text = encoder.vision, encoder.text
    whole = vision(pictures(2))
    assert torch.equal(whole.features, vision.encode(vision.embed(pictures(2))).features)
    batch = encoder.tokenize(["a red circle"])
    caches = [KeyValues(batch.ids.shape[1]) for _ in text.blocks]
    steps = [text.next(batch.ids[:, place], place, caches) for place in range(batch.ids.shape[1])]
    assert {step.dtype for step in steps} == {torch.float32}
    torch.testing.assert_close(torch.cat(steps, 1), text(batch.ids, batch.valid).features, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trace_has_finite_gradients(precision: str) -> None:
    vision = lower(precision).vision
    with record() as recorder:
        tokens = vision(pictures(2))
    trace = recorder.trace(tokens.features[:, 0].sum(1), {"image": vision.token_count}, None)
    for step in trace.steps:
        assert step.attention_grad is not None
        assert step.attention_grad.isfinite().all()
        assert step.attention_grad.abs().sum() > 0


def test_the_precision_chooses_the_store(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config().encoder
    encoders = [random_encoder(), copy.deepcopy(random_encoder()).use_precision("float32"), *map(lower, PRECISIONS)]
    names = [open_store(tmp_path, encoder, config, "images").name for encoder in encoders]
    assert names[0] == names[1]
    assert len({*names}) == 3


def test_a_checkpoint_of_another_precision_is_named(tiny: Tiny, tmp_path: Path) -> None:
    trained = tiny.config("encoder.precision=bfloat16")
    about = card(trained, lower("bfloat16"))
    check_fits(about, trained, tmp_path)
    with pytest.raises(UserError, match=r"has encoder\.precision=bfloat16, the config encoder\.precision=float32"):
        check_fits(about, tiny.config(), tmp_path)
    del about["encoder"]["precision"]  # as in checkpoints that were written before the key existed
    check_fits(about, tiny.config(), tmp_path)
