"""The word-level tokenizer and the chat template."""

from __future__ import annotations

import pytest

from clipmapper.llava.words import SPECIAL, build_tokenizer, split_words, vocabulary

pytest.importorskip("transformers")
TEXTS = ["a red circle, a ring and no star.", "What color is the ring?"]


def test_the_tokens_are_words_and_punctuation_marks() -> None:
    vocab = vocabulary(TEXTS)
    assert list(vocab)[: len(SPECIAL)] == [*SPECIAL]
    assert {*vocab} - {*SPECIAL} == {word for text in TEXTS for word in split_words(text)}
    tokenizer = build_tokenizer(vocab, 20)
    assert tokenizer.tokenize("Is the RED ring, no circle?") == ["is", "the", "red", "ring", ",", "no", "circle", "?"]
    assert tokenizer("<user><image>a ring<assistant>")["input_ids"] == [
        vocab[word] for word in ("<user>", "<image>", "a", "ring", "<assistant>")
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_decoded_as_it_was_written(text: str) -> None:
    tokenizer = build_tokenizer(vocabulary(TEXTS), 20)
    assert tokenizer.decode(tokenizer(f"{text}<end>")["input_ids"], skip_special_tokens=True) == text.lower()


def test_an_unknown_word_is_one_token() -> None:
    tokenizer = build_tokenizer(vocabulary(TEXTS), 20)
    assert tokenizer("a purple ring")["input_ids"][1] == tokenizer.unk_token_id
