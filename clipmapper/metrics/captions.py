"""Caption metrics as the COCO caption evaluation computes them, with notes on metrics that could not be computed.

Source: Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server" (2015), and its evaluator, which
pycocoevalcap packages. Captions are tokenised by ``clipmapper.metrics.tokens``. Values are fractions, 0..1; CIDEr is
0..10.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge

from clipmapper.console import progress
from clipmapper.errors import UserError
from clipmapper.metrics.cider import CiderCorpus
from clipmapper.metrics.java.meteor import METEOR
from clipmapper.metrics.java.process import NotAvailable
from clipmapper.metrics.java.spice import spice_scores
from clipmapper.metrics.tokens import plain_tokens, ptb_tokens

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr", "SPICE")

Tokenizer = Callable[[Sequence[str]], list[str]]  # each caption's tokens, separated by spaces
_Scores = list[tuple[float, Sequence[float]]]  # a metric's value for the corpus and for each image
_Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], _Scores]


@dataclass(frozen=True)
class CaptionScores:
    """Caption scores by metric. BLEU and METEOR of the corpus are not the means over its images."""

    corpus: dict[str, float]  #: value for all captions together, by metric
    per_image: dict[str, dict[int, float]]  #: value by metric, then by image id
    #: why a metric has no value, by metric; under ``tokens``: why the PTB tokenizer was not used
    notes: dict[str, str]


def score_captions(
    candidates: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    metrics: Collection[str] = METRICS,
    cider_corpus: CiderCorpus | None = None,
    tokenize: Tokenizer = ptb_tokens,
) -> CaptionScores:
    """Score one caption per image against the image's reference captions.

    Args:
        candidates: Untokenised caption of each image, by image id. An empty caption scores 0. Ids can also number other
            things, for example captions with one word left out (Huang et al. 2023, Eq. 21).
        references: One or more untokenised reference captions of each image, by image id.
        metrics: Names of the metrics to compute, from ``METRICS``.
        cider_corpus: Document frequencies of CIDEr; by default those of ``references``.
        tokenize: Tokenizer of the captions. If it is not available, the plain tokenizer is used and a note is added.

    Raises:
        UserError: There are no candidates, candidates and references have different ids, no reference of an image
            contains a word, or a metric is unknown.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"no metric is called {unknown[0]}; choose from {', '.join(METRICS)}")
    _check_ids(candidates, references)
    texts = [*candidates.values(), *(text for texts in references.values() for text in texts)]
    with progress(None, "splitting captions into words"):
        tokens, notes = _tokenise(texts, tokenize)
    own = [tokens[text] for text in candidates.values()]
    others = [[tokens[text] for text in references[image_id]] for image_id in candidates]
    if wordless := [image_id for image_id, texts in zip(candidates, others, strict=True) if not any(texts)]:
        raise UserError(f"image {wordless[0]}: no reference caption contains a word; add one or leave the image out")
    values: dict[str, tuple[float, Sequence[float]]] = {}
    for names, scorer in _scorers(cider_corpus):
        if set(names).isdisjoint(metrics):
            continue
        try:
            with progress(None, f"scoring captions by {names[-1]}"):
                values |= zip(names, scorer(own, others), strict=True)
        except NotAvailable as error:
            notes |= dict.fromkeys(names, f"not available: {error}")
    found = [name for name in METRICS if name in values and name in metrics]
    corpus = {name: float(values[name][0]) for name in found}
    per_image = {name: dict(zip(candidates, map(float, values[name][1]), strict=True)) for name in found}
    return CaptionScores(corpus, per_image, notes)


def build_cider_corpus(references: Iterable[Sequence[str]], tokenize: Tokenizer = ptb_tokens) -> CiderCorpus:
    """Compute CIDEr's document frequencies from the untokenised captions of each image of a split.

    Raises:
        UserError: There are no images.
    """
    images = list(references)
    if not images:
        raise UserError("CIDEr needs the reference captions of at least one image; give a split that has captions")
    tokens, _ = _tokenise((text for texts in images for text in texts), tokenize)
    return CiderCorpus([tokens[text] for text in texts] for texts in images)


def _check_ids(candidates: Mapping[int, str], references: Mapping[int, Sequence[str]]) -> None:
    if not candidates:
        raise UserError("there are no captions to score; give at least one image with a caption")
    if alone := [image_id for image_id in candidates if not references.get(image_id)]:
        raise UserError(
            f"image {alone[0]} has no reference captions ({len(alone)} such in all); "
            "add reference captions or leave these images out"
        )
    if alone := [image_id for image_id in references if image_id not in candidates]:
        raise UserError(
            f"image {alone[0]} has references but no caption ({len(alone)} such in all); "
            "caption every image of the split; an empty caption counts as wrong"
        )


def _tokenise(texts: Iterable[str], tokenize: Tokenizer) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tokens of each text, and a note if the tokenizer could not be run."""
    unique = list(dict.fromkeys(texts))
    try:
        return dict(zip(unique, tokenize(unique), strict=True)), {}
    except NotAvailable as error:
        note = (
            f"PTB tokenizer not available: {error}; the plain tokenizer was used, scores can differ from official ones"
        )
        return dict(zip(unique, plain_tokens(unique), strict=True)), {"tokens": note}


def _scorers(corpus: CiderCorpus | None) -> list[tuple[tuple[str, ...], _Scorer]]:
    """Return each scorer with the names of the metrics that it computes, in their order."""
    return [
        (BLEU, _bleu),
        (("METEOR",), lambda own, others: [METEOR.scores(own, others)]),
        (("ROUGE-L",), _rouge),
        (("CIDEr",), partial(_cider, corpus)),
        (("SPICE",), lambda own, others: [spice_scores(own, others)]),
    ]


def _bleu(own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    """Compute BLEU-1 to BLEU-4 with pycocoevalcap.

    The package smooths sentence scores only by a tiny constant, so BLEU-4 of a caption without a matching 4-gram is
    about 0.
    """
    totals, per_image = Bleu(4).compute_score(*_package_format(own, others), verbose=0)
    return list(zip(totals, per_image, strict=True))


def _rouge(own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    return [Rouge().compute_score(*_package_format(own, others))]


def _cider(corpus: CiderCorpus | None, own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    scores = (corpus or CiderCorpus(others)).scores(own, others)
    return [(sum(scores) / len(scores), scores)]


def _package_format(
    own: Sequence[str], others: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references and candidates as pycocoevalcap's scorers take them."""
    return {i: list(texts) for i, texts in enumerate(others)}, {i: [text] for i, text in enumerate(own)}


def summary(scores: CaptionScores) -> dict[str, Any]:
    """Return the scores' part of ``metrics.json``: corpus values (not in percent), number of images and notes."""
    images = {len(values) for values in scores.per_image.values()}
    return {**scores.corpus, "images": max(images, default=0), "notes": scores.notes}
