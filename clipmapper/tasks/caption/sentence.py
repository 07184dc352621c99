"""The explanation of a whole caption, combined from those of its words (Huang et al. 2023, Eq. 20-21)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.metrics.captions import score_captions
from clipmapper.metrics.cider import CiderCorpus
from clipmapper.metrics.tokens import one_line
from clipmapper.tasks.caption.config import WEIGHTINGS, Weighting

# Each weighting's metric, and the greatest decrease that counts as 0. In BLEU-4 of a sentence, 1e-15 replaces a count
# of 0 common 4-grams, so that its value is up to (1e-15)^(1/4) = 1.8e-4 instead of 0. The other metrics have rounding
# errors only.
_METRICS: dict[str, tuple[str, float]] = {
    "bleu4": ("BLEU-4", 2e-4),
    "cider": ("CIDEr", 1e-9),
    "meteor": ("METEOR", 1e-9),
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of CLIP's tokenizer; each punctuation mark and each digit is a word too."""

    text: str
    sub_words: int  #: number of sub-words


def split_words(ids: Sequence[int], tokenizer: Any) -> list[Word]:
    """Split a caption's token ids, without start and end token, into words.

    The last sub-word of a word is marked with ``</w>``; the end of a truncated caption also ends its last word. The
    words' texts joined by single spaces equal ``CaptionVocabulary.text``, except that a word of only control characters
    has an empty text.
    """
    words: list[Word] = []
    first = 0
    for place, number in enumerate(ids, 1):
        if tokenizer.decoder[number].endswith("</w>") or place == len(ids):
            text = one_line(tokenizer.decode(ids[first:place]))
            words.append(Word(" ".join(text.split()), place - first))
            first = place
    return words


def word_weights(
    captions: Mapping[int, Sequence[str]],
    references: Mapping[int, Sequence[str]],
    weighting: Weighting,
    cider_corpus: CiderCorpus | None = None,
) -> dict[int, list[float]]:
    """Compute the weight u_k of each word of a caption (Huang et al. 2023, Eq. 21).

    u_k = max(0, m(caption) − m(caption without word k)), divided by the sum over the caption; all weights are equal if
    all decreases are 0. m is the metric of the single sentence:

    - BLEU-4 with pycocoevalcap's smoothing. Without a common 4-gram it counts as 0, but for a caption of fewer than
      four words it can be up to 0.03.
    - CIDEr, 0..10.
    - METEOR.

    The captions are tokenised as in :mod:`clipmapper.metrics.captions` (without Java by the plain tokenizer), which
    removes punctuation: leaving out a punctuation mark changes no metric.

    Args:
        captions: Words of each caption by key, as the texts of :func:`split_words`.
        references: Untokenised reference captions by key; not used by ``equal``.
        weighting: ``equal``, or the metric m.
        cider_corpus: Document frequencies of the whole reference split, for ``cider``.

    Returns:
        Weights of the words by key; they sum to 1. A caption without words has no weights.

    Raises:
        UserError: The weighting is unknown, a caption has no usable reference, or METEOR can't be computed, for
            example without Java.
        ValueError: ``cider`` was chosen without its corpus.
    """
    if weighting not in WEIGHTINGS:
        raise UserError(f"weighting={weighting} is unknown; choose from {', '.join(WEIGHTINGS)}")
    if weighting == "equal":
        return {key: _normalise([0.0] * len(words)) for key, words in captions.items()}
    if weighting == "cider" and cider_corpus is None:
        raise ValueError("weighting=cider needs the document frequencies of the whole reference split")
    texts = {key: [" ".join(words), *_without_each_word(words)] for key, words in captions.items() if words}
    metric, negligible = _METRICS[weighting]
    values = _metric_values(texts, references, metric, cider_corpus)
    weights: dict[int, list[float]] = {key: [] for key in captions}
    for key, (whole, *parts) in values.items():
        weights[key] = _normalise([fall if (fall := whole - part) > negligible else 0.0 for part in parts])
    return weights


def _without_each_word(words: Sequence[str]) -> list[str]:
    """Return the caption without its first word, without its second word, and so on."""
    return [" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words))]


def _metric_values(
    texts: Mapping[int, Sequence[str]],
    references: Mapping[int, Sequence[str]],
    metric: str,
    cider_corpus: CiderCorpus | None,
) -> dict[int, list[float]]:
    """Score every text against the references of its key, all in one call; equal texts are scored once."""
    if alone := [key for key in texts if not references.get(key)]:
        raise UserError(
            f"caption {alone[0]} has no reference captions ({len(alone)} such in all); leave it out, "
            "or give weighting=equal"
        )
    if not texts:
        return {}
    against = {key: tuple(references[key]) for key in texts}
    numbers: dict[tuple[str, tuple[str, ...]], int] = {}
    fresh = count(max(texts) + 1)
    for key, (whole, *parts) in texts.items():
        numbers.setdefault((whole, against[key]), key)  # so that error messages name the caption's key
        for part in parts:
            numbers.setdefault((part, against[key]), next(fresh))
    candidates = {number: text for (text, _), number in numbers.items()}
    expected = {number: others for (_, others), number in numbers.items()}
    scores = score_captions(candidates, expected, [metric], cider_corpus)
    if metric not in scores.per_image:
        raise UserError(f"words can't be weighted by {metric}: {scores.notes[metric]}")
    value = scores.per_image[metric]
    return {key: [value[numbers[text, against[key]]] for text in each] for key, each in texts.items()}


def _normalise(falls: Sequence[float]) -> list[float]:
    total = sum(falls)
    return [fall / total for fall in falls] if total else [1 / len(falls) for _ in falls]


def sub_word_weights(words: Sequence[Word], weights: Sequence[float]) -> list[float]:
    """Return the weight of each sub-word of a caption: a word's weight is shared equally by its sub-words."""
    return [weight / word.sub_words for word, weight in zip(words, weights, strict=True) for _ in range(word.sub_words)]


def sentence_relevance(rows: Tensor, weights: Tensor, caption: Tensor, captions: int) -> Tensor:
    """Compute the explanation of whole captions, R_caption = Σ_i w_i · R_i (Huang et al. 2023, Eq. 20).

    Args:
        rows: Explanation R_i of each sub-word of all captions, [M, P].
        weights: Weight w_i of each sub-word, [M].
        caption: Number of the caption that each sub-word belongs to, 0..C − 1, int64 [M].
        captions: Number of captions, C.

    Returns:
        Explanations of the captions, [C, P]; zeros for a caption without sub-words.
    """
    weighted = weights.to(rows)[:, None] * rows
    return torch.zeros(captions, rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(0, caption, weighted)
