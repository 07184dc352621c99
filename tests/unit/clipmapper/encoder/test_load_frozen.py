"""A frozen encoder: it is never trained, and it preprocesses images and texts like open_clip, but without padding."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import LAYOUTS, Pair, bpe, encoded, picture, pictures

from clipmapper.encoder.load import FrozenClip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_images_are_preprocessed_like_in_open_clip(plain: Pair) -> None:
    encoder, model = plain
    images = [picture(50, 30), picture(24, 24), picture(10, 90), picture(33, 47, "L").convert("RGB")]
    config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    theirs = open_clip.transform.image_transform_v2(config, is_train=False)
    pixels = encoder.pixels(images)
    assert pixels.shape == (4, 3, 24, 24)
    assert torch.equal(pixels, torch.stack([theirs(image) for image in images]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_parameter_is_trainable_and_training_mode_is_never_entered(layout: str, pairs: dict[str, Pair]) -> None:
    encoder = pairs[layout][0]
    around = torch.nn.Sequential(encoder)
    around.train()
    assert around.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.vision(pictures(1)).features.requires_grad
    assert not encoded(encoder, ["a"]).features.requires_grad


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_tokens_are_those_of_open_clip_without_the_padding(texts: list[str]) -> None:
    tokenizer, batch = tokenized(texts)
    padded = tokenizer(texts, context_length=12)
    for text, row, ids, valid in zip(texts, padded, batch.ids, batch.valid, strict=True):
        length = int(valid.sum())
        assert valid.tolist() == sorted(valid.tolist(), reverse=True)
        assert ids[:length].tolist() == row[:length].tolist()
        assert not ids[length:].any()
        assert not row[length:].any()
        assert length == min(12, len(tokenizer.encode(text)) + 2)
        assert ids[0] == tokenizer.sot_token_id
        assert ids[length - 1] == tokenizer.eot_token_id
    assert batch.truncated == sum(len(tokenizer.encode(text)) + 2 > 12 for text in texts)


def tokenized(texts: list[str]) -> tuple[Any, Any]:
    """Return CLIP's tokenizer and the tokenized batch, without loading an encoder."""
    encoder = FrozenClip.__new__(FrozenClip)
    torch.nn.Module.__init__(encoder)
    encoder.tokenizer = bpe()
    encoder.text = torch.nn.Module()
    encoder.text.context_length = 12  # type: ignore[assignment]
    return encoder.tokenizer, encoder.tokenize(texts)


def test_a_text_as_long_as_the_context_is_not_cut_off(plain: Pair) -> None:
    encoder = plain[0]
    batch = encoder.tokenize(["red " * 10, "red " * 11, "red"])
    assert batch.valid.sum(1).tolist() == [12, 12, 3]
    assert batch.truncated == 1
    assert batch.ids[0].tolist() == batch.ids[1].tolist()
