"""Tests of the caption metrics against the published example and pycocoevalcap's pipeline, with unusual captions.

One METEOR process serves all tests of this file.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from programs import needs_java
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor as PackagedMeteor
from pycocoevalcap.rouge.rouge import Rouge
from scored_captions import CANDIDATES, METEOR, REFERENCES, WITHOUT_JAVA, random_set

from clipmapper.errors import UserError
from clipmapper.metrics.captions import BLEU, METRICS, score_captions, summary
from clipmapper.metrics.java import meteor
from clipmapper.metrics.java.process import PACKAGE
from clipmapper.metrics.tokens import plain_tokens

# The published example


@pytest.mark.slow
@needs_java
def test_the_published_example() -> None:
    scores = score_captions(CANDIDATES, REFERENCES)
    assert {name: round(value, 4) for name, value in scores.corpus.items()} == {**WITHOUT_JAVA, "METEOR": METEOR}
    assert set(scores.notes) == {"SPICE"}
    assert scores.notes["SPICE"].startswith("not available: stanford-corenlp-3.6.0.jar")
    assert summary(scores) == {**scores.corpus, "images": 2, "notes": scores.notes}


# pycocoevalcap's own pipeline


class SharedMeteor(PackagedMeteor):
    """The package's METEOR client, connected to the process that is already running."""

    def __init__(self, process: Any):
        self.meteor_p = process
        self.lock = threading.Lock()

    def __del__(self) -> None:
        pass


@pytest.fixture
def ptb_module(tmp_path: Path) -> ModuleType:
    """Return the package's tokenizer module, copied to a temporary folder, since it writes into its own folder."""
    for file in (PACKAGE / "tokenizer").glob("*.*"):
        (tmp_path / file.name).symlink_to(file) if file.suffix == ".jar" else shutil.copy(file, tmp_path)
    spec = importlib.util.spec_from_file_location("packaged_tokenizer", tmp_path / "ptbtokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@needs_java
def test_all_scores_equal_those_of_the_packages_pipeline(ptb_module: ModuleType) -> None:
    candidates, references = random_set(0)
    scores = score_captions(candidates, references)
    tokenize = ptb_module.PTBTokenizer().tokenize
    truth = tokenize({i: [{"caption": text} for text in texts] for i, texts in references.items()})
    own = tokenize({i: [{"caption": text}] for i, text in candidates.items()})
    shared = SharedMeteor(meteor.METEOR._running[os.getpid()]._process)
    for names, scorer in [(BLEU, Bleu(4)), (("METEOR",), shared), (("ROUGE-L",), Rouge()), (("CIDEr",), Cider())]:
        value, values = scorer.compute_score(truth, own)
        for name, one, each in zip(names, *((value, values) if len(names) > 1 else ([value], [values])), strict=True):
            assert scores.corpus[name] == pytest.approx(one, abs=1e-12)
            assert scores.per_image[name] == pytest.approx(dict(zip(truth, each, strict=True)), abs=1e-12)


# Captions that break other pipelines


@needs_java
def test_odd_captions_are_scored_and_do_not_change_the_scores_of_other_captions() -> None:
    """A shift by one image would change the scores of the plain captions between the odd ones."""
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
def test_nothing_is_written_into_the_packages_folder() -> None:
    def files() -> dict[Path, int]:
        kept = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
        return {path: path.stat().st_mtime_ns for path in kept}  # a new or removed file changes its folder's time

    before = files()
    score_captions(CANDIDATES, REFERENCES)
    assert files() == before


# Wrong input


@pytest.mark.parametrize(
    ("candidates", "references", "metrics", "message"),
    [
        ({}, {}, METRICS, "no captions to score"),
        ({1: "a"}, {}, METRICS, r"image 1 has no reference captions \(1 such"),
        ({1: "a"}, {1: []}, METRICS, "image 1 has no reference captions"),
        ({1: "a"}, {1: ["a"], 2: ["b"]}, METRICS, "image 2 has references but no caption"),
        ({1: "a", 5: "b"}, {1: ["a"], 5: ["...", "!"]}, METRICS, "image 5: no reference caption contains a word"),
        ({1: "a"}, {1: ["a"]}, ["BLEU-5"], "no metric is called BLEU-5; choose from BLEU-1,"),
    ],
)
def test_wrong_input_is_reported_in_one_line(
    candidates: dict[int, str], references: dict[int, list[str]], metrics: Sequence[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        score_captions(candidates, references, metrics, tokenize=plain_tokens)
    assert "\n" not in str(raised.value)


def test_only_the_chosen_metrics_are_computed() -> None:
    scores = score_captions(CANDIDATES, REFERENCES, metrics=["CIDEr", "BLEU-4"], tokenize=plain_tokens)
    assert list(scores.corpus) == list(scores.per_image) == ["BLEU-4", "CIDEr"]
