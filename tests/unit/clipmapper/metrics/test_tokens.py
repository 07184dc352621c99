"""Tests of the two tokenizers: no text shifts other captions, and both agree on ordinary captions."""

from __future__ import annotations

import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import needs_java
from scored_captions import CANDIDATES, REFERENCES, random_set

from clipmapper.data.shapes.captions import captions as shape_captions
from clipmapper.data.shapes.scene import sample_scene
from clipmapper.metrics.tokens import plain_tokens, ptb_tokens


@needs_java
def test_no_character_moves_a_caption_to_another_line() -> None:
    kinds = ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp")
    odd = [chr(c) for c in range(0x10000) if unicodedata.category(chr(c)) in kinds] + ["🎉", "<a", "x>", "<!--", "-->"]
    captions = [text for k, c in enumerate(odd) for text in (f"a {c} b{c}c {c}", f"mark{k}")]
    captions = [*captions, *reversed(captions), ""]
    tokens = ptb_tokens(captions)
    assert tokens[1 : 2 * len(odd) : 2] == [f"mark{k}" for k in range(len(odd))]
    assert tokens == [*tokens[: 2 * len(odd)], *reversed(tokens[: 2 * len(odd)]), ""]


@needs_java
def test_a_captions_tokens_do_not_depend_on_the_next_caption() -> None:
    """PTB keeps the full stop of "no." before a number in the same caption only."""
    assert ptb_tokens(["BIG no.", "5 dogs"]) == ["big no", "5 dogs"]
    assert ptb_tokens(["A photo of no. 5"]) == ["a photo of no. 5"]


@needs_java
def test_the_plain_tokenizer_equals_ptb_on_ordinary_captions() -> None:
    rng = random.Random(5)
    texts = [text for _ in range(200) for text in shape_captions(sample_scene(rng), 5, rng)]
    texts += [*CANDIDATES.values(), *REFERENCES[1], *REFERENCES[2], *(text for text in random_set(1)[0].values())]
    texts += [
        'It\'s a man\'s "best" friend, isn\'t it?', "They can't; he'll cannot - won't -- I'm you're we've she'd.",
        "the birds' tails", "50% off for $5 & more...", "two (2) dogs, 1,000 cats and 3.5 kites at 9:30 p.m.",
        "naïve? café!",
        "a man/woman wanna go", "it’s a “nice” day", "x", "", "...", "a brown-and-white cow!",
    ]  # fmt: skip
    assert plain_tokens(texts) == ptb_tokens(texts)


def test_both_tokenizers_agree_on_nearly_all_real_captions(real_mini: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("no Java runtime")
    from clipmapper.data.caption_files import read_coco_captions

    data = read_coco_captions(real_mini / "captions_val2014_subset.json", real_mini)
    texts = [text for image in data.images for text in image.captions]
    different = [pair for pair in zip(plain_tokens(texts), ptb_tokens(texts), strict=True) if pair[0] != pair[1]]
    assert len(different) <= len(texts) // 200


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_the_plain_tokenizer_accepts_any_text(text: str) -> None:
    (tokens,) = plain_tokens([text])
    assert tokens.split() == tokens.split(" ") if tokens else True
    assert tokens.isprintable() or any(not c.isprintable() for c in text)
