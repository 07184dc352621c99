"""A greedy search for the order of removal that changes the answer most, for images with too many subsets to read.

The search starts with all patches. In each round it removes the patch without which the probability of the answer asked
about becomes lowest, given the patches removed before. A second search looks for the highest probability. With n
patches, each search takes n + (n − 1) + … + 1 forward passes.

The result is an order, so an explainer could produce it, but it is not always the best one: a greedy search misses
patches that matter only together. The search uses the probability; the accuracy along the same order bounds nothing.
Random orders are the reference for an explanation that knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perturbation.arrays import Array, Mask
from perturbation.removal.order import kept_masks, random_numbers, single_masks

RANDOM_ORDERS = 16  #: number of random orders whose mean is the estimate for all orders of an image


def greedy_masks(
    read: Callable[[Mask], Array], removable: Mask, steps: Sequence[float], draws: Sequence[str]
) -> dict[str, Mask]:
    """Return the kept masks at every step of the two searched orders and of random orders.

    Args:
        read: A function from kept masks [B, M, n] to the numbers to minimise and maximise, [B, M]: the probability of
            each sample's answer.
        removable: bool [B, n]; a sample without removable tokens keeps all tokens.
        steps: The S removed fractions.
        draws: The seed string of each sample's random orders, B of them.

    Returns:
        ``lowest`` and ``highest``: [B, S, n]; ``random``: [B, RANDOM_ORDERS · S, n], one order after the other.
    """
    ties = random_numbers([f"{draw}/ties" for draw in draws], removable.shape[1])
    ends = {
        "lowest": greedy_scores(read, removable, ties),
        "highest": greedy_scores(lambda kept: -read(kept), removable, ties),
    }
    found = {end: kept_masks(each, removable, steps, "positive", ties) for end, each in ends.items()}
    scores = (
        random_numbers([f"{draw}/{order}" for draw in draws], removable.shape[1]) for order in range(RANDOM_ORDERS)
    )
    found["random"] = np.concatenate([kept_masks(each, removable, steps, "positive", ties) for each in scores], axis=1)
    return found


def greedy_scores(read: Callable[[Mask], Array], removable: Mask, ties: Array) -> Array:
    """Search for the order that makes ``read`` small, and return it as scores, [B, n].

    The higher a score, the earlier the token is removed. Among equally good tokens, the one with the lowest number in
    ``ties`` is removed.

    Args:
        read: A function from kept masks [B, M, n] to the numbers to minimise, [B, M].
        removable: bool [B, n].
        ties: [B, n].
    """
    scores, left = np.zeros(removable.shape), removable.copy()
    for score in range(int(removable.sum(axis=1).max()), 0, -1):
        candidates = single_masks(left) & (left | ~removable)[:, None]
        candidates[~left] = True  # these masks are not needed; a full sample is read already, so it costs nothing
        chosen = np.lexsort((ties, np.where(left, read(candidates), np.inf)))[:, 0]
        going = np.flatnonzero(left.any(axis=1))
        scores[going, chosen[going]] = score
        left[going, chosen[going]] = False
    return scores
