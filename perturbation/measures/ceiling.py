"""How small and how large an area any order could reach, so that an explainer's can be read as a share of it.

Text: every subset of the sub-words is read, and each step is bounded by the best and the worst subset of its size. The
subsets of neighbouring steps need not contain one another, so no order need reach the bound. The mean over all subsets
of a size is what random orders give on average, exactly. Images, and so many subsets: ``perturbation.measures.greedy``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perturbation.removal.masks import Array, Mask
from perturbation.removal.steps import removed_count


def few_enough(removable: Mask, words: int) -> list[int]:
    """The samples with 1 to ``words`` removable tokens: removable [B, n] → their places."""
    counts = removable.sum(axis=1)
    return np.flatnonzero((counts >= 1) & (counts <= words)).tolist()


def all_subsets(removable: Mask, places: Sequence[int]) -> Mask:
    """Every subset of the removable tokens of some samples, all other tokens kept: [B, n] → kept masks [B, M, n].

    A sample with k removable tokens has its 2^k subsets first, subset i without the tokens whose bits i has; what
    follows, and all masks of the samples that are not asked for, keep everything.
    """
    tokens = [np.flatnonzero(removable[place]) for place in places]
    kept = np.ones((len(removable), 2 ** max(map(len, tokens)), removable.shape[1]), dtype=np.bool_)
    for place, found in zip(places, tokens, strict=True):
        numbers = np.arange(2 ** len(found))[:, None]
        kept[place, : len(numbers), found] = (numbers >> np.arange(len(found)) & 1 == 0).T
    return kept


def bounds(values: Array, steps: Sequence[float]) -> dict[str, Array]:
    """Lowest, mean and highest value over the subsets of every step's size: values [2^k] → [S] each.

    Args:
        values: One number for each subset, in the order of ``all_subsets``.
        steps: Removed fractions.
    """
    tokens = len(values).bit_length() - 1
    removed = np.array([number.bit_count() for number in range(len(values))])
    groups = [values[removed == removed_count(tokens, step)] for step in steps]
    return {
        "lowest": np.array([group.min() for group in groups]),
        "mean": np.array([group.mean() for group in groups]),
        "highest": np.array([group.max() for group in groups]),
    }
