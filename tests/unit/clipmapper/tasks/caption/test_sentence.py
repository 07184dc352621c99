"""Tests of the words' weights against slow metrics, and of a caption's explanation against a loop."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import bpe
from programs import needs_java
from watching import watched

from clipmapper.errors import UserError
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.metrics.java.meteor import METEOR
from clipmapper.metrics.java.process import NotAvailable, java_command
from clipmapper.tasks.caption import sentence
from clipmapper.tasks.caption.sentence import Word, sentence_relevance, split_words, sub_word_weights, word_weights
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary

REFERENCES = {
    4: ["a red star left of a blue ring", "a small red star and a blue ring", "two shapes on a dark background"],
    9: ["a green moon above a heart", "there is a green moon and a pink heart"],
    2: ["two crosses and a white square", "a white square under two crosses"],
}
VOCABULARY = "a red star left of blue ring small and two green moon heart white , ."


@pytest.fixture(autouse=True)
def without_java(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide Java from tests that are not marked as needing it.

    They use the plain tokenizer, whose tokens equal PTB's on these captions.
    """
    if request.node.get_closest_marker("skipif") is None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(NotAvailable):
            java_command()


# Slow versions of the metrics, for one sentence at a time: n-grams are tuples, counted by list.count


@cache
def grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = [word for word in text.split() if word not in (",", ".")]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def slow_bleu4(text: str, references: Sequence[str]) -> float:
    """Compute BLEU-4 with the package's smoothing: 1e-15 is added to common n-grams, 1e-9 to all n-grams."""
    product = 1.0
    for n in (1, 2, 3, 4):
        mine = grams(text, n)
        common = sum(min(mine.count(g), max(grams(r, n).count(g) for r in references)) for g in set(mine))
        product *= (common + 1e-15) / (len(mine) + 1e-9)
    own = len(grams(text, 1))
    closest = min((abs(len(grams(r, 1)) - own), len(grams(r, 1))) for r in references)[1]
    ratio = (own + 1e-15) / (closest + 1e-9)
    return float(product**0.25 * (math.exp(1 - 1 / ratio) if ratio < 1 else 1))


def slow_cider(text: str, references: Sequence[str], split: Sequence[Sequence[str]]) -> float:
    def vector(caption: str, n: int) -> dict[tuple[str, ...], float]:
        found = {}
        for g in set(grams(caption, n)):
            images = sum(any(g in grams(r, n) for r in others) for others in split)
            found[g] = grams(caption, n).count(g) * (math.log(len(split)) - math.log(max(1, images)))
        return found

    total = 0.0
    for reference in references:
        gap = len(grams(text, 1)) - len(grams(reference, 1))
        for n in (1, 2, 3, 4):
            mine, other = vector(text, n), vector(reference, n)
            lengths = math.hypot(*mine.values()) * math.hypot(*other.values())
            dot = sum(min(mine[g], other[g]) * other[g] for g in mine.keys() & other.keys())
            total += math.exp(-(gap**2) / 72) * (dot / lengths if lengths else 0) / 4
    return 10 * total / len(references)


def slow_weights(words: Sequence[str], metric: Any) -> list[float]:
    falls = []
    for i in range(len(words)):
        fall = metric(" ".join(words)) - metric(" ".join(word for k, word in enumerate(words) if k != i))
        falls.append(fall if fall > 2e-4 else 0.0)
    return [fall / sum(falls) if any(falls) else 1 / len(words) for fall in falls]


def altered_captions(rng: random.Random) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references with some words exchanged, doubled or left out, as captions; several are of one image."""
    captions, references = {}, {}
    for key in range(30):
        image = rng.choice(list(REFERENCES))
        words = rng.choice(REFERENCES[image]).split()
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(len(words))
            words[at : at + 1] = (
                rng.choice([[rng.choice(VOCABULARY.split())], [words[at]] * 2, []]) or words[at : at + 1][1:]
            )
            words = words or ["a"]
        captions[7 * key], references[7 * key] = words, REFERENCES[image]
    return captions, references


@pytest.mark.parametrize("seed", range(2))
def test_weights_equal_the_decreases_of_slow_metrics(seed: int) -> None:
    captions, references = altered_captions(random.Random(seed))
    split = list(REFERENCES.values())
    bleu = word_weights(captions, references, "bleu4")
    cider = word_weights(captions, references, "cider", build_cider_corpus(split))
    assert list(bleu) == list(cider) == list(captions)
    uneven = 0
    for key, words in captions.items():
        others = references[key]
        expected = slow_weights(words, lambda text, others=others: slow_bleu4(text, others))
        assert bleu[key] == pytest.approx(expected, abs=1e-9)
        expected = slow_weights(words, lambda text, others=others: slow_cider(text, others, split))
        assert cider[key] == pytest.approx(expected, abs=1e-9)
        assert sum(bleu[key]) == pytest.approx(1)
        assert sum(cider[key]) == pytest.approx(1)
        uneven += len(set(bleu[key])) > 1
    assert uneven > 10


def test_weights_do_not_depend_on_the_other_captions() -> None:
    captions, references = altered_captions(random.Random(5))
    corpus = build_cider_corpus(REFERENCES.values())
    together = word_weights(captions, references, "cider", corpus)
    for key in list(captions)[:8]:
        assert word_weights({key: captions[key]}, references, "cider", corpus) == {key: together[key]}


def test_a_wrong_word_and_punctuation_marks_have_weight_zero() -> None:
    words = ["a", "red", "star", ",", "left", "of", "a", "blue", "ring", "zebra", "."]
    weights = word_weights({1: words}, {1: REFERENCES[4]}, "bleu4")[1]
    assert [word for word, weight in zip(words, weights, strict=True) if not weight] == [",", "zebra", "."]


@pytest.mark.parametrize("weighting", ["bleu4", "cider", "equal"])
def test_words_of_a_caption_without_common_words_have_equal_weights(weighting: sentence.Weighting) -> None:
    corpus = build_cider_corpus(REFERENCES.values())
    captions = {3: ["zebra"] * 5, 1: ["zebra", "one", "elephant"], 5: ["zebra"], 6: []}
    found = word_weights(captions, dict.fromkeys(captions, REFERENCES[4]), weighting, corpus)
    assert found == {3: [0.2] * 5, 1: pytest.approx([1 / 3] * 3), 5: [1.0], 6: []}


def test_without_a_common_four_gram_bleu_gives_equal_weights() -> None:
    """Its smoothed values differ only by the constant for a missing 4-gram, which does not count as a decrease."""
    words = ["a", "red", "star", "right", "of", "a", "blue", "moon"]
    values = {slow_bleu4(" ".join(words[:i] + words[i + 1 :]), REFERENCES[4]) for i in range(8)}
    assert 0 < min(values) < max(values) < 2e-4
    assert word_weights({1: words}, {1: REFERENCES[4]}, "bleu4")[1] == [1 / 8] * 8


def test_captions_of_one_word_and_of_no_word() -> None:
    corpus = build_cider_corpus(REFERENCES.values())
    found = word_weights({1: ["moon"], 2: []}, {1: REFERENCES[9]}, "cider", corpus)
    assert found == {1: [1.0], 2: []}
    assert word_weights({2: []}, {}, "bleu4") == {2: []}
    assert word_weights({}, {}, "bleu4") == {}


def test_repeated_words_are_left_out_one_at_a_time() -> None:
    words = ["two", "crosses", "and", "and", "a", "white", "square"]
    weights = word_weights({1: words}, {1: REFERENCES[2]}, "bleu4")[1]
    assert weights[2] == weights[3] == 0  # without either of the two, the caption is the reference
    assert min(weights[4:]) > 0
    words = ["a", "red", "star", "and", "a", "blue", "ring"]
    first, second = (word_weights({1: words}, {1: REFERENCES[4]}, "bleu4")[1][k] for k in (0, 4))
    assert first != second


def test_equal_texts_are_scored_once() -> None:
    sent: list[dict[int, str]] = []
    captions = {0: ["a", "a", "ring"], 1: ["a", "ring"], 2: ["a", "a", "ring"], 3: ["a", "a", "ring"]}
    references = {0: REFERENCES[4], 1: REFERENCES[4], 2: REFERENCES[4], 3: REFERENCES[9]}
    with watched(sentence, "score_captions", lambda candidates, *_: sent.append(candidates)):
        found = word_weights(captions, references, "bleu4")
    assert found[0] == found[2]
    assert [sorted(texts.values()) for texts in sent] == [
        sorted(["a a ring", "a ring", "a a", "ring", "a", "a a ring", "a ring", "a a"])
    ]


# METEOR


@pytest.mark.slow
@needs_java
def test_meteor_weights_equal_the_decreases_of_its_scores() -> None:
    texts = {1: "a red zebra right of the rings", 2: "two two green moons"}
    others = {1: REFERENCES[4], 2: REFERENCES[9]}
    found = word_weights({key: text.split() for key, text in texts.items()}, others, "meteor")
    for key, words in ((key, text.split()) for key, text in texts.items()):
        tried = [" ".join(words), *(" ".join(words[:i] + words[i + 1 :]) for i in range(len(words)))]
        _, (whole, *parts) = METEOR.scores(tried, [others[key]] * len(tried))
        falls = [max(0.0, whole - part) for part in parts]
        assert found[key] == pytest.approx([fall / sum(falls) for fall in falls], abs=1e-12)
        assert len(set(falls)) > 2


def test_meteor_without_java_is_refused_in_one_line() -> None:
    METEOR.close()  # it may still run from another test
    with pytest.raises(UserError, match="METEOR: not available: no java found") as raised:
        word_weights({1: ["a", "ring"]}, {1: REFERENCES[4]}, "meteor")
    assert "\n" not in str(raised.value)


# Wrong arguments


def test_missing_or_empty_references_are_named_by_the_captions_key() -> None:
    good = {1: ["a", "ring"], 8: ["a", "moon"]}
    with pytest.raises(UserError, match=r"caption 8 has no reference captions \(1 such in all\)"):
        word_weights(good, {1: REFERENCES[4], 8: []}, "bleu4")
    with pytest.raises(UserError, match="image 8: no reference caption contains a word"):
        word_weights(good, {1: REFERENCES[4], 8: ["...", "!"]}, "bleu4")


def test_unknown_weightings_and_cider_without_its_corpus_are_refused() -> None:
    with pytest.raises(UserError, match="weighting=rouge is unknown; choose from equal, bleu4, cider, meteor"):
        word_weights({1: ["a"]}, {1: ["a"]}, "rouge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole reference split"):
        word_weights({1: ["a"]}, {1: ["a"]}, "cider")


# Words and sub-words


def test_words_equal_those_of_the_tokenizer() -> None:
    ids = bpe().encode("A xylophonically red star, isn't it? 10 cafés")
    words = split_words(ids, bpe())
    assert [word.text for word in words] == [
        "a", "xylophonically", "red", "star", ",", "isn", "'t", "it", "?", "1", "0", "cafés",
    ]  # fmt: skip
    assert [word.sub_words for word in words] == [len(bpe().encode(word.text)) for word in words]
    assert words[1].sub_words == 4


def test_the_end_of_a_truncated_caption_ends_its_last_word() -> None:
    ids = bpe().encode("a xylophonically")[:3]
    assert [word.sub_words for word in split_words(ids, bpe())] == [1, 2]
    assert [word.text for word in split_words(ids, bpe())] == ["a", "xylo"]


@cache
def every_token() -> CaptionVocabulary:
    return CaptionVocabulary(range(49408), bpe())


@given(st.lists(st.integers(0, 49405), max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_words_of_any_sub_words_join_to_their_text(ids: list[int]) -> None:
    words = split_words(ids, bpe())
    assert sum(word.sub_words for word in words) == len(ids)
    marks = [bpe().decoder[number].endswith("</w>") for number in ids]
    assert len(words) == sum(marks) + (bool(marks) and not marks[-1])
    assert " ".join(word.text for word in words if word.text) == every_token().text(ids)


def test_sub_words_share_the_weight_of_their_word() -> None:
    words = [Word("a", 1), Word("xylophonically", 4), Word("ring", 2)]
    weights = sub_word_weights(words, [0.5, 0.2, 0.3])
    assert weights == pytest.approx([0.5, 0.05, 0.05, 0.05, 0.05, 0.15, 0.15])
    with pytest.raises(ValueError, match="zip"):
        sub_word_weights(words, [1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_captions_relevance_is_the_weighted_sum_of_its_rows(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(9, 5, generator=draw, dtype=dtype)
    weights = torch.rand(9, generator=draw, dtype=torch.float64)
    caption = torch.tensor([2, 0, 0, 4, 2, 4, 4, 0, 2])
    found = sentence_relevance(rows, weights, caption, 5)
    assert found.dtype == dtype
    for c in range(5):
        expected = [sum(float(weights[m] * rows[m, p]) for m in range(9) if caption[m] == c) for p in range(5)]
        assert found[c].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_relevance_of_a_caption_sums_to_one_if_its_rows_do() -> None:
    words = split_words(bpe().encode("a xylophonically red star"), bpe())
    weights = sub_word_weights(words, word_weights({1: [w.text for w in words]}, {1: REFERENCES[4]}, "bleu4")[1])
    rows = torch.rand(len(weights), 7, dtype=torch.float64).softmax(1)
    found = sentence_relevance(rows, torch.tensor(weights), torch.zeros(len(weights), dtype=torch.long), 1)
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
