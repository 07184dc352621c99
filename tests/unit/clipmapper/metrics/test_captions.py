"""Caption metrics against the published example and pycocoevalcap's own pipeline, and what must not go wrong in them.

One METEOR process serves all tests of this file.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_captions import CANDIDATES, METEOR, REFERENCES, WITHOUT_JAVA
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor as PackagedMeteor
from pycocoevalcap.rouge.rouge import Rouge

from clipmapper.data.shapes.captions import captions as shape_captions
from clipmapper.data.shapes.scene import sample_scene
from clipmapper.errors import UserError
from clipmapper.metrics.captions import BLEU, METRICS, build_cider_corpus, score_captions, summary
from clipmapper.metrics.cider import CiderCorpus
from clipmapper.metrics.java import meteor
from clipmapper.metrics.java.process import PACKAGE
from clipmapper.metrics.tokens import plain_tokens, ptb_tokens

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime")

WORDS = ["a", "the", "two", "red", "dog", "cat's", "Cat", "on", "in,", "isn't", "sitting", "t-shirt", "café", "(old)"]
WORDS += ["table.", "bus", "photo's", "10:30", "tall", "of"]


@pytest.fixture(autouse=True, scope="module")
def german_machine() -> Iterator[None]:
    """All programs here run under a locale with a decimal comma; the second setting needs no such locale installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "de_DE.UTF-8")
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Duser.language.format=de")
        yield


def random_set(seed: int, images: int = 40) -> tuple[dict[int, str], dict[int, list[str]]]:
    rng = random.Random(seed)

    def caption() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 14)))

    references = {i: [caption() for _ in range(rng.randint(1, 7))] for i in rng.sample(range(10**6), images)}
    candidates = {i: caption() if rng.random() < 0.7 else rng.choice(texts) for i, texts in references.items()}
    return candidates, references


# The published example


@needs_java
def test_the_published_example() -> None:
    scores = score_captions(CANDIDATES, REFERENCES)
    assert {name: round(value, 4) for name, value in scores.corpus.items()} == {**WITHOUT_JAVA, "METEOR": METEOR}
    assert set(scores.notes) == {"SPICE"}
    assert scores.notes["SPICE"].startswith("not available: stanford-corenlp-3.6.0.jar")
    assert summary(scores) == {**scores.corpus, "images": 2, "notes": scores.notes}


# pycocoevalcap's own pipeline


class SharedMeteor(PackagedMeteor):
    """The package's protocol over the process that is running already."""

    def __init__(self, process: Any):
        self.meteor_p = process
        self.lock = threading.Lock()

    def __del__(self) -> None:
        pass


@pytest.fixture
def ptb_module(tmp_path: Path) -> ModuleType:
    """The package's tokenizer module in a folder of its own, since it writes beside itself."""
    for file in (PACKAGE / "tokenizer").glob("*.*"):
        (tmp_path / file.name).symlink_to(file) if file.suffix == ".jar" else shutil.copy(file, tmp_path)
    spec = importlib.util.spec_from_file_location("packaged_tokenizer", tmp_path / "ptbtokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_java
def test_every_number_is_that_of_the_packages_pipeline(ptb_module: ModuleType) -> None:
    candidates, references = random_set(0)
    scores = score_captions(candidates, references)
    tokenize = ptb_module.PTBTokenizer().tokenize
    truth = tokenize({i: [{"caption": text} for text in texts] for i, texts in references.items()})
    own = tokenize({i: [{"caption": text}] for i, text in candidates.items()})
    shared = SharedMeteor(meteor._running[os.getpid()]._process)
    for names, scorer in [(BLEU, Bleu(4)), (("METEOR",), shared), (("ROUGE-L",), Rouge()), (("CIDEr",), Cider())]:
        value, values = scorer.compute_score(truth, own)
        for name, one, each in zip(names, *((value, values) if len(names) > 1 else ([value], [values])), strict=True):
            assert scores.corpus[name] == pytest.approx(one, abs=1e-12)
            assert scores.per_image[name] == pytest.approx(dict(zip(truth, each, strict=True)), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_cider_of_the_corpus_itself_is_the_packages(seed: int) -> None:
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


def test_cider_of_one_image_needs_a_corpus() -> None:
    split = {1: REFERENCES[1], 2: REFERENCES[2], 3: ["a red bus on the street"], 4: ["people playing tennis"]}
    one = {1: CANDIDATES[1]}, {1: REFERENCES[1]}
    cider = partial(score_captions, metrics=["CIDEr"], tokenize=plain_tokens)
    assert cider(*one).corpus["CIDEr"] == 0
    alone = cider(*one, cider_corpus=build_cider_corpus(split.values(), plain_tokens)).corpus["CIDEr"]
    others = {**CANDIDATES, 3: "a bus", 4: "a man"}
    assert alone == pytest.approx(cider(others, split).per_image["CIDEr"][1], abs=1e-12)
    assert alone > 0


def test_cider_is_ten_for_the_only_reference_and_falls_with_length() -> None:
    corpus = CiderCorpus([["a red bus on the street"], ["two dogs run"], ["a cat"]])
    same, longer = corpus.scores(
        ["a red bus on the street", "a red bus on the street " * 3], [["a red bus on the street"]] * 2
    )
    assert same == pytest.approx(10)
    assert 0 < longer < 1


# Texts that break other pipelines


@needs_java
def test_odd_captions_score_themselves_and_leave_the_others_alone() -> None:
    """A shift by one image would give the plain captions between them other scores."""
    long = " ".join(f"word{k}" for k in range(200))
    odd = [
        "a\ncat",
        "a\u2028cat",
        "a\x85cat\r\n",
        "a\u2029\x0bcat\x0c",
        "cat",
        long,
        "",
        "a 🎉 cat ☃",
        "|||",
        "a ||| cat",
    ]
    odd += ["\ud83c cat", "\x00", "SCORE ||| x", "1,5 cats"]
    candidates, references = {}, {}
    for k, text in enumerate(odd):
        candidates |= {2 * k: text, 2 * k + 1: CANDIDATES[1]}
        references |= {2 * k: ["a cat", "one\u2028cat\n", "|||", long], 2 * k + 1: REFERENCES[1]}
    scores = score_captions(candidates, references, metrics=["BLEU-1", "METEOR", "ROUGE-L"])
    plain = score_captions({1: CANDIDATES[1]}, {1: REFERENCES[1]}, metrics=["BLEU-1", "METEOR", "ROUGE-L"])
    for name, values in scores.per_image.items():
        assert {values[2 * k + 1] for k in range(len(odd))} == {plain.per_image[name][1]}
        assert values[0] == values[2] == values[4] == values[6]  # four ways to write "a cat"
        assert values[10] == pytest.approx(1, abs=1e-6)
        assert values[12] == pytest.approx(0, abs=1e-6)
    assert scores.per_image["METEOR"][0] == 1


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
def test_a_captions_tokens_do_not_hang_on_the_next_caption() -> None:
    """PTB keeps the full stop of "no." before a number."""
    assert ptb_tokens(["BIG no.", "5 dogs"]) == ["big no", "5 dogs"]
    assert ptb_tokens(["A photo of no. 5"]) == ["a photo of no. 5"]


@needs_java
def test_the_plain_tokenizer_is_ptb_on_ordinary_captions() -> None:
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


def test_real_captions_are_cut_alike_by_both_tokenizers(real_mini: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("no Java runtime")
    from clipmapper.data.caption_files import read_coco_captions

    data = read_coco_captions(real_mini / "captions_val2014_subset.json", real_mini)
    texts = [text for image in data.images for text in image.captions]
    different = [pair for pair in zip(plain_tokens(texts), ptb_tokens(texts), strict=True) if pair[0] != pair[1]]
    assert len(different) <= len(texts) // 200


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_the_plain_tokenizer_takes_any_text(text: str) -> None:
    (tokens,) = plain_tokens([text])
    assert tokens.split() == tokens.split(" ") if tokens else True
    assert tokens.isprintable() or any(not c.isprintable() for c in text)


@needs_java
def test_nothing_is_written_beside_the_package() -> None:
    def files() -> dict[Path, int]:
        kept = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
        return {path: path.stat().st_mtime_ns for path in kept}  # a folder's time changes with its files

    before = files()
    score_captions(CANDIDATES, REFERENCES)
    assert files() == before


# What the user can get wrong


@pytest.mark.parametrize(
    ("candidates", "references", "metrics", "message"),
    [
        ({}, {}, METRICS, "no captions to score"),
        ({1: "a"}, {}, METRICS, r"image 1 has no reference captions \(1 such"),
        ({1: "a"}, {1: []}, METRICS, "image 1 has no reference captions"),
        ({1: "a"}, {1: ["a"], 2: ["b"]}, METRICS, "image 2 has references but no caption"),
        ({1: "a", 5: "b"}, {1: ["a"], 5: ["...", "!"]}, METRICS, "image 5: no reference caption holds a word"),
        ({1: "a"}, {1: ["a"]}, ["BLEU-5"], "no metric is called BLEU-5; choose from BLEU-1,"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(
    candidates: dict[int, str], references: dict[int, list[str]], metrics: Sequence[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        score_captions(candidates, references, metrics, tokenize=plain_tokens)
    assert "\n" not in str(raised.value)


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        build_cider_corpus([])


def test_only_the_wanted_metrics_are_computed() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, metrics=["CIDEr", "BLEU-4"], tokenize=plain_tokens)
    assert list(scores.corpus) == list(scores.per_image) == ["BLEU-4", "CIDEr"]
