"""In which order tokens are removed, and which tokens stay at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clipmapper.errors import UserError
from perturbation.arrays import Mask
from perturbation.removal.steps import removed_count

Direction = Literal["positive", "negative"]


def removal_order(scores: NDArray[np.floating], removable: NDArray[np.bool_], direction: Direction) -> NDArray[np.intp]:
    """Token positions [B, n] in the order of removal: positive = highest score first, negative = lowest first.

    Equal scores go by position, the first token first, in both directions: an explanation that cannot tell tokens apart
    has one order, and no gap between its directions. Tokens that may not be removed come last, in their own order.

    Args:
        scores: [B, n], any scale.
        removable: bool [B, n]; False for padding and for the class, start and end tokens, whose scores are not read.
        direction: ``positive`` or ``negative``.

    Raises:
        UserError: an unknown direction, or a removable token's score is NaN or infinite.
        ValueError: shapes or kinds of the arrays do not fit.
    """
    if direction not in get_args(Direction):
        raise UserError(f"direction={direction!r} is unknown: choose {' or '.join(get_args(Direction))}")
    check_scores(scores, removable)
    by_score = np.where(removable, scores, 0.0)
    # lexsort is stable and sorts by its last key first.
    return np.lexsort((-by_score if direction == "positive" else by_score, ~removable), axis=-1)


def kept_masks(
    scores: NDArray[np.floating], removable: NDArray[np.bool_], steps: Sequence[float], direction: Direction
) -> NDArray[np.bool_]:
    """Which tokens stay at every step: bool [B, S, n], True where the token stays.

    A step removes ``removed_count`` of the sample's own removable tokens; all others always stay. A sample without any
    removable token keeps everything at every step, so its curve is flat.

    Args and raises: as ``removal_order``; steps: the S removed fractions.
    """
    order = removal_order(scores, removable, direction)
    rank = np.argsort(order, axis=-1)
    totals, sample_total = np.unique(removable.sum(axis=-1), return_inverse=True)
    counts = np.array([[removed_count(int(n), step) for step in steps] for n in totals], dtype=np.intp)
    counts = counts.reshape(len(totals), len(steps))[sample_total]
    return rank[:, None, :] >= counts[:, :, None]


def single_masks(removable: Mask) -> Mask:
    """Kept masks [B, n, n], the i-th without token i; all tokens are kept where token i is not removable."""
    return ~(np.eye(removable.shape[1], dtype=np.bool_) & removable[:, None, :])


def check_scores(scores: NDArray[np.floating], removable: NDArray[np.bool_]) -> None:
    """Scores [B, n] and removable bool [B, n] fit each other, and the scores of removable tokens are finite.

    Raises:
        UserError: a removable token's score is NaN or infinite; the message names the sample's index in the batch.
        ValueError: not two arrays [B, n] of one shape, or ``removable`` is not boolean.
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
            "see what the explainer gives for this sample"
        )
