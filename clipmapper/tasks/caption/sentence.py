"""The explanation of a whole caption out of those of its words (Eq. 20-21)."""

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

# The metric, and the greatest fall that says nothing. BLEU-4 of a sentence puts 1e-15 for a count of 0 common 4-grams,
# which makes it up to (1e-15)^(1/4) = 1.8e-4 instead of 0. The others fall by rounding alone.
_METRICS: dict[str, tuple[str, float]] = {
    "bleu4": ("BLEU-4", 2e-4),
    "cider": ("CIDEr", 1e-9),
    "meteor": ("METEOR", 1e-9),
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of CLIP's tokenizer, a punctuation mark or a digit among them, and how many sub-words it has."""

    text: str
    sub_words: int


def split_words(ids: Sequence[int], tokenizer: Any) -> list[Word]:
    """The words of a caption's token ids, without start and end token, in their order.

    A sub-word that ends a word is marked with ``</w>``; a caption that was cut off ends its last word. The texts with
    single spaces between them are the caption as ``CaptionVocabulary.text`` writes it, but for words of control
    characters alone, whose text is empty.
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
    """Eq. 21: how much each word of a caption counts, by the caption's key; they sum to 1, no words have none.

    w_i = max(0, m(caption) − m(caption without word i)), divided by their sum; all equal where all are 0. m is the
    metric of the one sentence: BLEU-4 as the package smooths it (without a common 4-gram it counts as 0, but in a
    caption of under four words it may be up to 0.03), CIDEr of 0..10, or METEOR. They read the words as
    ``metrics.captions`` cuts them, without Java by the plain tokenizer: leaving out a punctuation mark changes nothing.

    Args:
        captions: the words of each caption, as ``split_words`` gives their texts.
        references: the reference captions of each, untokenised; ``equal`` does not read them.
        weighting: ``equal``, or the metric m.
        cider_corpus: the document frequencies of the whole reference split, for ``cider``.

    Raises:
        UserError: an unknown weighting, no usable reference captions, or METEOR without Java.
        ValueError: ``cider`` without its corpus.
    """
    if weighting not in WEIGHTINGS:
        raise UserError(f"weighting={weighting} is unknown; choose from {', '.join(WEIGHTINGS)}")
    if weighting == "equal":
        return {key: _normalised([0.0] * len(words)) for key, words in captions.items()}
    if weighting == "cider" and cider_corpus is None:
        raise ValueError("weighting=cider needs the document frequencies of the whole reference split")
    texts = {key: [" ".join(words), *_shortened(words)] for key, words in captions.items() if words}
    metric, nothing = _METRICS[weighting]
    values = _values(texts, references, metric, cider_corpus)
    weights: dict[int, list[float]] = {key: [] for key in captions}
    for key, (whole, *parts) in values.items():
        weights[key] = _normalised([fall if (fall := whole - part) > nothing else 0.0 for part in parts])
    return weights


def _shortened(words: Sequence[str]) -> list[str]:
    return [" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words))]


def _values(
    texts: Mapping[int, Sequence[str]],
    references: Mapping[int, Sequence[str]],
    metric: str,
    cider_corpus: CiderCorpus | None,
) -> dict[int, list[float]]:
    """The metric of every text against the references of its key, all in one go; what is equal once."""
    if alone := [key for key in texts if not references.get(key)]:
        raise UserError(
            f"caption {alone[0]} has no reference captions ({len(alone)} such in all); leave it out, or weight all "
            "words equally"
        )
    if not texts:
        return {}
    against = {key: tuple(references[key]) for key in texts}
    numbers: dict[tuple[str, tuple[str, ...]], int] = {}
    fresh = count(max(texts) + 1)
    for key, (whole, *parts) in texts.items():
        numbers.setdefault((whole, against[key]), key)  # a message that names it names the caption's key
        for part in parts:
            numbers.setdefault((part, against[key]), next(fresh))
    candidates = {number: text for (text, _), number in numbers.items()}
    wanted = {number: others for (_, others), number in numbers.items()}
    scores = score_captions(candidates, wanted, [metric], cider_corpus)
    if metric not in scores.per_image:
        raise UserError(f"words can't be weighted by {metric}: {scores.notes[metric]}")
    value = scores.per_image[metric]
    return {key: [value[numbers[text, against[key]]] for text in each] for key, each in texts.items()}


def _normalised(falls: Sequence[float]) -> list[float]:
    total = sum(falls)
    return [fall / total for fall in falls] if total else [1 / len(falls) for _ in falls]


def sub_word_weights(words: Sequence[Word], weights: Sequence[float]) -> list[float]:
    """The weight of each sub-word of a caption, in their order: a word's weight shared equally by its sub-words."""
    return [weight / word.sub_words for word, weight in zip(words, weights, strict=True) for _ in range(word.sub_words)]


def sentence_relevance(rows: Tensor, weights: Tensor, caption: Tensor, captions: int) -> Tensor:
    """Eq. 20: R_caption = Σ_i w_i · R_i, [C, P].

    Args:
        rows: [M, P], the explanation R_i of each sub-word of all captions.
        weights: [M], w_i.
        caption: int64 [M], the place from 0 to C − 1 of the caption a sub-word belongs to.
        captions: C; a caption without sub-words has zeros.
    """
    weighted = weights.to(rows)[:, None] * rows
    return torch.zeros(captions, rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(0, caption, weighted)
