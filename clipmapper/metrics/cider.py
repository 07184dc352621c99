"""CIDEr-D (Vedantam et al., 2015) with the document frequencies of a whole reference split, computed once.

If the corpus is the scored references themselves, the numbers equal those of pycocoevalcap's scorer. That scorer always
takes its document frequencies from the references that it scores against, so there a caption's score depends on the
other images, and a single image scores 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ORDERS = 4
_SIGMA = 6.0
_Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Vector:
    """tf-idf vector of a caption."""

    weights: tuple[dict[_Gram, float], ...]  #: tf-idf weight of each n-gram, for each order n
    norms: tuple[float, ...]  #: Euclidean norm of the weights, for each order n
    length: int  #: number of words


class CiderCorpus:
    """Document frequencies of n-grams: the number of images in whose references an n-gram occurs.

    Args:
        references: Tokenised captions (words separated by spaces) of each image.

    Raises:
        ValueError: There are no images.
    """

    def __init__(self, references: Iterable[Sequence[str]]):
        images = 0
        frequency: Counter[_Gram] = Counter()
        for captions in references:
            images += 1
            frequency.update({gram for caption in captions for gram in _grams(caption)})
        if not images:
            raise ValueError("document frequencies need the references of at least one image")
        self._unseen = math.log(images)
        self._idf = {gram: self._unseen - math.log(count) for gram, count in frequency.items()}

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """Return CIDEr-D, 0..10, of each tokenised candidate against its one or more tokenised references.

        A candidate's score depends on its own references only, not on the other candidates.
        """
        vectors = {caption: self._vector(caption) for caption in {c for captions in references for c in captions}}
        return [
            _mean_similarity(self._vector(candidate), [vectors[caption] for caption in captions])
            for candidate, captions in zip(candidates, references, strict=True)
        ]

    def _vector(self, caption: str) -> _Vector:
        """Return the tf-idf vector of a caption."""
        weights: tuple[dict[_Gram, float], ...] = tuple({} for _ in range(_ORDERS))
        for gram, count in _grams(caption).items():
            weights[len(gram) - 1][gram] = count * self._idf.get(gram, self._unseen)
        norms = tuple(math.sqrt(sum(weight**2 for weight in part.values())) for part in weights)
        return _Vector(weights, norms, len(caption.split()))


def _grams(caption: str) -> Counter[_Gram]:
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, _ORDERS + 1) for i in range(len(words) - n + 1))


def _mean_similarity(candidate: _Vector, references: Sequence[_Vector]) -> float:
    return 10 * sum(_similarity(candidate, reference) for reference in references) / len(references)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Return the mean cosine over the n-gram orders, with clipped counts, times the length penalty."""
    cosines = 0.0
    for mine, theirs, my_norm, their_norm in zip(
        candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True
    ):
        if my_norm and their_norm:
            shared = sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs)
            cosines += shared / (my_norm * their_norm)
    penalty = math.exp(-((candidate.length - reference.length) ** 2) / (2 * _SIGMA**2))
    return penalty * cosines / _ORDERS
