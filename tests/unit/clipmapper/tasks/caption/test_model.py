"""Tests of the caption model, whose logits depend on the image and earlier words only, and of its vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import CAPTIONS, caption_vocabulary, pictures, random_caption, random_encoder

from clipmapper.encoder.load import TextBatch
from clipmapper.errors import UserError
from clipmapper.tasks.caption.vocabulary import IGNORED, CaptionVocabulary, build_vocabulary

MAPPERS = pytest.mark.parametrize("name", ["a", "b"])


@MAPPERS
@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("place", [1, 3, 6])
def test_a_changed_token_changes_no_earlier_logit_and_no_image_token(name: str, positions: str, place: int) -> None:
    model = random_caption(name, positions)
    pixels = pictures(2).double()
    batch = model.encoder.tokenize([CAPTIONS[0]] * 2)
    ids = batch.ids.clone()
    ids[:, place] += 7
    changed = TextBatch(ids, batch.valid, 0)
    before, after = model(pixels, batch), model(pixels, changed)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.isclose(before[:, place:], after[:, place:]).all(-1).any()
    image = model.encoder.vision(pixels)
    streams = [
        model.trained.mapper(image, model.encoder.text(b.ids, b.valid), causal=True)[0] for b in (batch, changed)
    ]
    assert torch.equal(*streams)


@MAPPERS
def test_the_logits_at_every_position_depend_on_the_image(name: str) -> None:
    model = random_caption(name)
    batch = model.encoder.tokenize([CAPTIONS[0]])
    these, those = (model(pictures(1, seed=seed).double(), batch) for seed in (0, 1))
    assert not torch.isclose(these, those).all(-1).any()


@MAPPERS
def test_padding_changes_nothing(name: str) -> None:
    model = random_caption(name)
    pixels = pictures(len(CAPTIONS)).double()
    batch = model.encoder.tokenize(CAPTIONS)
    logits = model(pixels, batch)
    assert logits.shape == (len(CAPTIONS), batch.ids.shape[1], len(model.vocabulary))
    for k, caption in enumerate(CAPTIONS):
        alone = model(pixels[k : k + 1], model.encoder.tokenize([caption]))[0]
        torch.testing.assert_close(logits[k, : len(alone)], alone, rtol=0, atol=1e-12)


def test_the_vocabulary_has_the_training_tokens_and_the_end_token() -> None:
    tokenizer = random_encoder().tokenizer
    captions = [[tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id] for text in CAPTIONS]
    built = build_vocabulary("training", captions, tokenizer)
    assert set(built.ids) == {i for ids in captions for i in ids} - {tokenizer.sot_token_id}
    everything = build_vocabulary("all", captions, tokenizer)
    assert set(everything.ids) == set(range(tokenizer.vocab_size)) - {tokenizer.sot_token_id}
    with pytest.raises(UserError, match="no training caption contains a word"):
        build_vocabulary("training", [[tokenizer.sot_token_id, tokenizer.eot_token_id]], tokenizer)


def test_tokens_of_the_vocabulary_have_classes_and_others_are_ignored() -> None:
    words = caption_vocabulary()
    assert list(words.classes(np.array(words.ids))) == list(range(len(words)))
    others = np.array(sorted(set(range(49408)) - set(words.ids)))
    assert set(words.classes(others)) == {IGNORED}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red  circle.", "a red circle ."),
        ("naïve café", "naïve café"),
        ("two 🎉 stars", "two 🎉 stars"),
        ("line\u2028one\ttabs\nmore", "line one tabs more"),
        ("", ""),
        ("it's 2:30", "it 's 2 : 3 0"),
    ],
)
def test_the_text_of_ids_is_one_clean_line(text: str, expected: str) -> None:
    tokenizer = random_encoder().tokenizer
    words = CaptionVocabulary(range(1000), tokenizer)
    ids = [words.start, *tokenizer.encode(text), words.end, 500, 600]
    assert words.text(ids) == expected


def test_the_text_of_any_ids_is_one_line() -> None:
    """The ids include incomplete characters and the bytes of control characters."""
    words = CaptionVocabulary(range(49406), random_encoder().tokenizer)
    draw = np.random.default_rng(0)
    for _ in range(300):
        text = words.text(draw.integers(0, 49406, 12).tolist() + draw.integers(0, 256, 8).tolist())
        assert text == " ".join(text.split())
        assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in text)
        assert len(text.splitlines()) <= 1
