"""From what the model says after removal to areas, comprehensiveness and sufficiency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def areas(curves: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Area under every curve by the trapezoid rule over the step fractions, in percent: [..., S] → [...].

    Values and steps in 0..1 give areas in 0..100 where the steps run from 0 to 1. The first step, 0, is the unmasked
    point and counts. Steps need not be evenly spaced: each piece is as wide as its two steps are apart.

    Raises:
        ValueError: the last axis is not S long, there are fewer than two steps, or a value is NaN or infinite.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if len(steps) < 2 or curves.shape[-1:] != (len(steps),):
        raise ValueError(
            f"curves {curves.shape} need a last axis as long as the steps, of which {len(steps)} are given"
        )
    if not np.isfinite(curves).all():
        raise ValueError(
            f"the curve at {np.argwhere(~np.isfinite(curves))[0].tolist()} (the last is the step) is not finite"
        )
    half_widths = np.diff(np.asarray(steps, dtype=np.float64)) / 2
    weights = np.append(half_widths, 0.0) + np.append(0.0, half_widths)
    return 100 * (curves @ weights)


def area_under_mean(curves: NDArray[np.floating], steps: Sequence[float]) -> float:
    """Area under the mean curve of all samples, in percent: curves [samples, S].

    The area is linear in the curve, so this is also the mean of the samples' own areas, and intervals and tests may be
    made from those (``perturbation.statistics``).

    Raises: ValueError as ``areas``, and where there is no sample.
    """
    if curves.ndim != 2 or not len(curves):
        raise ValueError(f"curves {curves.shape} must be [samples, S] with at least one sample")
    return float(areas(curves.mean(axis=0, dtype=np.float64), steps))


def direction_gaps(positive: NDArray[np.floating], negative: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Every sample's area of the negative curve less that of the positive one, in percent: two [..., S] → [...].

    Large is faithful; 0 is what an order that knows nothing gets on average.

    Raises: ValueError as ``areas``, and where the two have different shapes.
    """
    if positive.shape != negative.shape:
        raise ValueError(f"positive {positive.shape} and negative {negative.shape} curves differ in shape")
    return areas(negative, steps) - areas(positive, steps)
