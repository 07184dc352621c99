"""Tests of CIDEr against pycocoevalcap, and with the document frequencies of another corpus."""

from __future__ import annotations

from functools import partial

import pytest
from pycocoevalcap.cider.cider import Cider
from scored_captions import CANDIDATES, REFERENCES, random_set

from clipmapper.errors import UserError
from clipmapper.metrics.captions import build_cider_corpus, score_captions
from clipmapper.metrics.cider import CiderCorpus
from clipmapper.metrics.tokens import plain_tokens


@pytest.mark.parametrize("seed", range(4))
def test_cider_with_the_frequencies_of_the_scored_references_equals_the_packages(seed: int) -> None:
    candidates, references = random_set(seed, images=25)
    own = {i: [text.lower()] for i, text in candidates.items()}
    truth = {i: [text.lower() for text in texts] for i, texts in references.items()}
    _, expected = Cider().compute_score(truth, own)
    corpus = CiderCorpus(truth.values())
    scores = corpus.scores([texts[0] for texts in own.values()], list(truth.values()))
    assert scores == pytest.approx(list(expected), abs=1e-12)
    assert max(scores) > 1
    picked = [7, 3]
    few = corpus.scores([list(own.values())[k][0] for k in picked], [list(truth.values())[k] for k in picked])
    assert few == [scores[k] for k in picked]


def test_cider_of_one_image_is_zero_without_a_corpus() -> None:
    split = {1: REFERENCES[1], 2: REFERENCES[2], 3: ["a red bus on the street"], 4: ["people playing tennis"]}
    one = {1: CANDIDATES[1]}, {1: REFERENCES[1]}
    cider = partial(score_captions, metrics=["CIDEr"], tokenize=plain_tokens)
    assert cider(*one).corpus["CIDEr"] == 0
    alone = cider(*one, cider_corpus=build_cider_corpus(split.values(), plain_tokens)).corpus["CIDEr"]
    others = {**CANDIDATES, 3: "a bus", 4: "a man"}
    assert alone == pytest.approx(cider(others, split).per_image["CIDEr"][1], abs=1e-12)
    assert alone > 0


def test_cider_is_ten_for_a_copy_of_the_only_reference_and_lower_for_a_longer_caption() -> None:
    corpus = CiderCorpus([["a red bus on the street"], ["two dogs run"], ["a cat"]])
    same, longer = corpus.scores(
        ["a red bus on the street", "a red bus on the street " * 3], [["a red bus on the street"]] * 2
    )
    assert same == pytest.approx(10)
    assert 0 < longer < 1


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        build_cider_corpus([])
