"""The order in which tokens are removed, and the masks of the kept tokens at every step."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clipmapper.errors import UserError
from perturbation.arrays import Array, Mask
from perturbation.removal.steps import removed_count

Direction = Literal["positive", "negative"]


def draw_ties(seed: int, ids: Sequence[int | str], modality: str, tokens: int) -> Array:
    """Return a random number for every token, [B, tokens], which orders tokens with equal scores.

    A number depends only on the seed, the sample's id, the modality and the token's position, and therefore not on the
    batch, on padding or on whether a run was resumed.
    """
    return random_numbers([f"{seed}/{each}/{modality}/ties" for each in ids], tokens)


def random_numbers(names: Sequence[str], tokens: int) -> Array:
    """Return uniform random numbers from 0 to 1, [B, tokens]; the names, B of them, are the seeds of the rows."""
    generators = [Random(name) for name in names]
    return np.array([[generator.random() for _ in range(tokens)] for generator in generators])


def removal_order(
    scores: NDArray[np.floating], removable: NDArray[np.bool_], direction: Direction, ties: Array
) -> NDArray[np.intp]:
    """Return token positions in the order of removal, int [B, n].

    Equal scores are ordered by ``ties``, the lowest number first, in both directions. An explanation with only equal
    scores therefore has the same random order in both directions, and no gap between them. Tokens that are not
    removable come last, in the order of their positions.

    Args:
        scores: [B, n], any scale.
        removable: bool [B, n]; False for padding and for the class, start and end tokens, whose scores are ignored.
        direction: ``positive`` removes the highest scores first, ``negative`` the lowest.
        ties: [B, n], from ``draw_ties``.

    Raises:
        UserError: The direction is unknown, or the score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit.
    """
    if direction not in get_args(Direction):
        raise UserError(f"direction={direction!r} is unknown: choose {' or '.join(get_args(Direction))}")
    check_scores(scores, removable)
    by_score = np.where(removable, scores, 0.0)
    among_equals = np.where(removable, ties, 0.0)
    # lexsort is stable, and its last key is the first to sort by.
    return np.lexsort((among_equals, -by_score if direction == "positive" else by_score, ~removable), axis=-1)


def kept_masks(
    scores: NDArray[np.floating],
    removable: NDArray[np.bool_],
    steps: Sequence[float],
    direction: Direction,
    ties: Array,
) -> NDArray[np.bool_]:
    """Return the kept tokens at every step, bool [B, S, n].

    A step removes ``removed_count`` of the sample's removable tokens, in the order of ``removal_order``; all other
    tokens are always kept. A sample without removable tokens keeps everything, so its curve is flat.

    Args:
        scores: [B, n], any scale.
        removable: bool [B, n].
        steps: The S removed fractions.
        direction: ``positive`` removes the highest scores first, ``negative`` the lowest.
        ties: [B, n], from ``draw_ties``.

    Raises:
        UserError: The direction is unknown, or the score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit.
    """
    order = removal_order(scores, removable, direction, ties)
    rank = np.argsort(order, axis=-1)
    totals, sample_total = np.unique(removable.sum(axis=-1), return_inverse=True)
    counts = np.array([[removed_count(int(n), step) for step in steps] for n in totals], dtype=np.intp)
    counts = counts.reshape(len(totals), len(steps))[sample_total]
    return rank[:, None, :] >= counts[:, :, None]


def single_masks(removable: Mask) -> Mask:
    """Return kept masks [B, n, n]: mask i removes token i, or nothing if token i is not removable."""
    return ~(np.eye(removable.shape[1], dtype=np.bool_) & removable[:, None, :])


def check_scores(scores: NDArray[np.floating], removable: NDArray[np.bool_]) -> None:
    """Check that scores and removable are both [B, n], and that the scores of removable tokens are finite.

    Raises:
        UserError: The score of a removable token is NaN or infinite; the message contains its index in the batch.
        ValueError: The arrays do not have the same shape [B, n], or ``removable`` is not boolean.
    """
    if scores.ndim != 2 or scores.shape != removable.shape:
        raise ValueError(f"scores {scores.shape} and removable {removable.shape} must both be [B, n]")
    if removable.dtype != np.bool_:
        raise ValueError(f"removable must be boolean, not {removable.dtype}")
    broken = removable & ~np.isfinite(scores)
    if broken.any():
        sample, token = np.argwhere(broken)[0]
        raise UserError(
            f"the score of token {token} of sample {sample} is {scores[sample, token]}, which cannot be ranked: "
            "check the explainer's scores for this sample"
        )
