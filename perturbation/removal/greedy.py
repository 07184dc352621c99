"""How far an order of removal can push the answer, found by search where there are too many subsets to read them all.

Images: beginning with all patches, the search always removes next the patch without which the answer asked about is
least probable, given those removed already; once more with the most probable. n patches take n + (n − 1) + … + 1
readings each time. What it finds is an order, so an explainer could reach it, but need not be the best: a greedy search
misses patches that matter only together. It goes by probability; the accuracy along the same order is no bound of any
kind. Random orders are the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from perturbation.arrays import Array, Mask
from perturbation.removal.order import kept_masks, single_masks

RANDOM_ORDERS = 16  #: whose mean stands for all orders of a picture


def greedy_masks(
    read: Callable[[Mask], Array], removable: Mask, steps: Sequence[float], draws: Sequence[str]
) -> dict[str, Mask]:
    """What stays at every step of the orders found and of random ones.

    Args:
        read: Kept masks [B, M, n] → what is pushed down and up, the probability of every sample's answer, [B, M].
        removable: bool [B, n]; a sample without removable tokens keeps all.
        steps: The S removed fractions.
        draws: What each sample's random orders are drawn from.

    Returns:
        ``lowest`` and ``highest`` → [B, S, n]; ``random`` → [B, RANDOM_ORDERS · S, n], order by order.
    """
    ends = {"lowest": greedy_scores(read, removable), "highest": greedy_scores(lambda kept: -read(kept), removable)}
    found = {end: kept_masks(each, removable, steps, "positive") for end, each in ends.items()}
    scores = (_random_scores(draws, order, removable.shape[1]) for order in range(RANDOM_ORDERS))
    found["random"] = np.concatenate([kept_masks(each, removable, steps, "positive") for each in scores], axis=1)
    return found


def greedy_scores(read: Callable[[Mask], Array], removable: Mask) -> Array:
    """Scores [B, n], the higher the earlier a token is removed by the search that makes ``read`` small.

    Of tokens that are equally good the first goes. Args: as ``greedy_masks``.
    """
    scores, left = np.zeros(removable.shape), removable.copy()
    for score in range(int(removable.sum(axis=1).max()), 0, -1):
        candidates = single_masks(left) & (left | ~removable)[:, None]
        candidates[~left] = True  # reading a sample as it is costs nothing
        chosen = np.where(left, read(candidates), np.inf).argmin(axis=1)
        going = np.flatnonzero(left.any(axis=1))
        scores[going, chosen[going]] = score
        left[going, chosen[going]] = False
    return scores


def _random_scores(draws: Sequence[str], order: int, tokens: int) -> Array:
    generators = [Random(f"{draw}/{order}") for draw in draws]
    return np.array([[generator.random() for _ in range(tokens)] for generator in generators])
