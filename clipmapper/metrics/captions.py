"""Caption metrics as the COCO caption evaluation computes them, and what could not be computed and why.

Source: Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server" (2015), and its evaluator, which
pycocoevalcap packages. Captions are tokenised by ``clipmapper.metrics.tokens``; values are fractions, CIDEr 0..10.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge

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
    """Values by metric, for the corpus and by image id; BLEU and METEOR of the corpus are not the images' means.

    A metric that could not be computed has no value but a line in ``notes``. ``notes["tokens"]`` says where the
    captions were not tokenised by PTB.
    """

    corpus: dict[str, float]
    per_image: dict[str, dict[int, float]]
    notes: dict[str, str]


def score_captions(
    candidates: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    metrics: Collection[str] = METRICS,
    cider_corpus: CiderCorpus | None = None,
    tokenize: Tokenizer = ptb_tokens,
) -> CaptionScores:
    """Scores one caption an image, by image id, against its one or more references; texts as they are, untokenised.

    The keys may stand for anything: for weights of words (Eq. 21), one for each caption with a word left out.
    ``cider_corpus`` gives CIDEr's document frequencies, by default ``references`` themselves. Where ``tokenize`` is not
    available, the plain tokenizer stands in and a note says so. An empty caption scores 0.

    Raises ``UserError`` where there are no candidates, the two have different ids, an image has no reference that holds
    a word, or a metric is unknown.
    """
    if unknown := [name for name in metrics if name not in METRICS]:
        raise UserError(f"no metric is called {unknown[0]}; choose from {', '.join(METRICS)}")
    _check_ids(candidates, references)
    texts = [*candidates.values(), *(text for texts in references.values() for text in texts)]
    tokens, notes = _tokenised(texts, tokenize)
    own = [tokens[text] for text in candidates.values()]
    others = [[tokens[text] for text in references[image_id]] for image_id in candidates]
    if wordless := [image_id for image_id, texts in zip(candidates, others, strict=True) if not any(texts)]:
        raise UserError(f"image {wordless[0]}: no reference caption holds a word; add one or leave the image out")
    values: dict[str, tuple[float, Sequence[float]]] = {}
    for names, scorer in _scorers(cider_corpus):
        if set(names).isdisjoint(metrics):
            continue
        try:
            values |= zip(names, scorer(own, others), strict=True)
        except NotAvailable as error:
            notes |= dict.fromkeys(names, f"not available: {error}")
    found = [name for name in METRICS if name in values and name in metrics]
    corpus = {name: float(values[name][0]) for name in found}
    per_image = {name: dict(zip(candidates, map(float, values[name][1]), strict=True)) for name in found}
    return CaptionScores(corpus, per_image, notes)


def build_cider_corpus(references: Iterable[Sequence[str]], tokenize: Tokenizer = ptb_tokens) -> CiderCorpus:
    """The document frequencies of a reference split: each image's captions, untokenised.

    Raises ``UserError`` where there are no images.
    """
    images = list(references)
    if not images:
        raise UserError("CIDEr needs the reference captions of at least one image; give a split that has captions")
    tokens, _ = _tokenised((text for texts in images for text in texts), tokenize)
    return CiderCorpus([tokens[text] for text in texts] for texts in images)


def _check_ids(candidates: Mapping[int, str], references: Mapping[int, Sequence[str]]) -> None:
    if not candidates:
        raise UserError("there are no captions to score; give at least one image with a caption")
    if alone := [image_id for image_id in candidates if not references.get(image_id)]:
        raise UserError(
            f"image {alone[0]} has no reference captions ({len(alone)} such in all); "
            "add them or leave out what can't be scored"
        )
    if alone := [image_id for image_id in references if image_id not in candidates]:
        raise UserError(
            f"image {alone[0]} has references but no caption ({len(alone)} such in all); "
            "caption every image of the split, an empty caption counts as wrong"
        )


def _tokenised(texts: Iterable[str], tokenize: Tokenizer) -> tuple[dict[str, str], dict[str, str]]:
    """Each text's tokens, and a note where the tokenizer could not be run."""
    unique = list(dict.fromkeys(texts))
    try:
        return dict(zip(unique, tokenize(unique), strict=True)), {}
    except NotAvailable as error:
        note = f"PTB tokenizer not available: {error}; a plain one stood in, scores can differ from official ones"
        return dict(zip(unique, plain_tokens(unique), strict=True)), {"tokens": note}


def _scorers(corpus: CiderCorpus | None) -> list[tuple[tuple[str, ...], _Scorer]]:
    return [
        (BLEU, _bleu),
        (("METEOR",), lambda own, others: [METEOR.scores(own, others)]),
        (("ROUGE-L",), _rouge),
        (("CIDEr",), partial(_cider, corpus)),
        (("SPICE",), lambda own, others: [spice_scores(own, others)]),
    ]


def _bleu(own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    """Sentence scores are those of the package: no smoothing but a tiny number, so mostly 0 without a 4-gram."""
    totals, per_image = Bleu(4).compute_score(*_packed(own, others), verbose=0)
    return list(zip(totals, per_image, strict=True))


def _rouge(own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    return [Rouge().compute_score(*_packed(own, others))]


def _cider(corpus: CiderCorpus | None, own: Sequence[str], others: Sequence[Sequence[str]]) -> _Scores:
    scores = (corpus or CiderCorpus(others)).scores(own, others)
    return [(sum(scores) / len(scores), scores)]


def _packed(own: Sequence[str], others: Sequence[Sequence[str]]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return {i: list(texts) for i, texts in enumerate(others)}, {i: [text] for i, text in enumerate(own)}


def summary(scores: CaptionScores) -> dict[str, Any]:
    """The scores' part of ``metrics.json``: corpus values as they are (not in percent), and the notes."""
    images = {len(values) for values in scores.per_image.values()}
    return {**scores.corpus, "images": max(images, default=0), "notes": scores.notes}
