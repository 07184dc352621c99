"""The words that a model of ``transformers`` or open_clip cannot know."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sample_models
from tiny_runs import QUIET, composed
from torch import nn

from clipmapper.any_model.load import load_model
from clipmapper.any_model.words import count_words
from clipmapper.cli import typed
from clipmapper.config.explain import ModelPictureConfig
from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import write_hugging_face
from clipmapper.encoder.load import load_encoder
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL

pytest.importorskip("transformers")
TEXTS = ["a red circle", None, "a zebra left of a Circle"]


@pytest.mark.parametrize("kind", ["open_clip", "exported", "llava"])
def test_the_words_that_the_shipped_models_were_not_trained_on(kind: str, tmp_path: Path) -> None:
    if kind == "exported":
        encoder = load_encoder(EncoderConfig(EMBEDDED_MODEL, "embedded", "float32", 8))
        write_hugging_face(encoder, tmp_path / "clip")
    model = {
        "open_clip": ["model=open_clip", f"model.architecture={EMBEDDED_MODEL}", "model.weights=embedded"],
        "exported": ["model=huggingface", f"model.path={tmp_path / 'clip'}"],
        "llava": ["model=huggingface", "model.path=embedded"],
    }[kind]
    count = count_words(load_model(typed(composed("explain", *model, *QUIET), ModelPictureConfig)), TEXTS)
    assert count is not None
    assert count.entry() == {"words": 6, "questions": 2, "affected": 1, "unknown": {"zebra": 1}}
    assert str(count) == (
        "words: 1 of the 6 words of the questions are unknown to the model; they are in 1 of 2 questions: zebra (1)"
    )


def test_nothing_is_said_of_models_whose_words_are_not_known() -> None:
    tokenizer = SimpleNamespace(encode=lambda word: [len(word)])
    for processor in (object(), (None, tokenizer)):
        loaded: Any = SimpleNamespace(model=nn.Embedding(49408, 2), processor=processor)
        assert count_words(loaded, TEXTS) is None


def test_the_unknown_token_of_a_tokenizer() -> None:
    model, processor = sample_models.clip()
    loaded: Any = SimpleNamespace(model=model, processor=processor)
    known = processor.tokenizer.get_vocab().keys()
    count = count_words(loaded, TEXTS)
    assert count is not None
    assert count.unknown.keys() == {"a", "red", "circle", "zebra", "left", "of"} - known
