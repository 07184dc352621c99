"""Intervals and paired tests for means over samples.

Whatever is a mean over samples goes in as one number a sample. That includes the area under the mean curve: the area is
linear in the curve, so it is the mean of the samples' own areas (``report.curves.areas``), for the data as for every
resample of them, and no curve needs to be resampled.

Everything here follows from the seed alone: the random numbers are drawn one resample after the other, and how many of
them are multiplied out at a time changes only the rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbation.arrays import Array

# Weights held at a time: 32 MB.
CHUNK_NUMBERS = 4_000_000

# Two sums of the same numbers in another order differ by less than this share of the mean size of the numbers.
_ROUNDING = 1e-10


def bootstrap_means(values: NDArray[np.floating], *, resamples: int = 2000, seed: int = 0) -> Array:
    """The mean over samples of every bootstrap resample: values [samples, ...] → [resamples, ...].

    All columns of one call, and calls of equal sample count and seed, share their resamples.

    Raises:
        ValueError: no sample, no resample, or a value is NaN or infinite.
    """
    return _nested_means(np.asarray(values)[None], True, resamples, seed)


def bootstrap_interval(values: NDArray[np.floating], *, resamples: int = 2000, seed: int = 0) -> Array:
    """95 % percentile bootstrap interval of the mean over samples: values [samples, ...] → [2, ...], low and high.

    NaN where there is one sample only, which says nothing of the spread.

    Raises: ValueError as ``bootstrap_means``.
    """
    interval = _percentile_interval(bootstrap_means(values, resamples=resamples, seed=seed))
    return np.full_like(interval, np.nan) if len(values) < 2 else interval


def seed_interval(values: NDArray[np.floating], *, shared_samples: bool, resamples: int = 2000, seed: int = 0) -> Array:
    """95 % interval of the mean over training seeds and samples: values [seeds, samples, ...] → [2, ...], low and high.

    A two-level percentile bootstrap: training seeds are drawn with replacement, then samples.

    Args:
        values: one number a training seed and sample (and column).
        shared_samples: True where column i of every training seed is the same sample (one test split for all): one
            resample of the samples then serves all seeds (Owen 2007, the pigeonhole bootstrap). A sample that is hard
            for one seed is hard for the others too, and drawing samples anew in every seed would take those for
            independent and give an interval that is too narrow. False where every seed has samples of its own.
        resamples, seed: number of resamples, and the seed of the drawing.

    With few training seeds the interval is too narrow, as every percentile bootstrap of so few numbers is: where the
    seeds make most of the spread, it covers about 75 % with three, 83 % with five and 90 % with ten (simulated).

    Raises:
        ValueError: fewer than two training seeds, no sample, no resample, or a value is NaN or infinite.
    """
    if values.ndim < 2 or len(values) < 2:
        raise ValueError(f"values {values.shape} must be [seeds, samples, ...] with at least two training seeds")
    return _percentile_interval(_nested_means(values, shared_samples, resamples, seed))


def sign_flip_p_value(differences: NDArray[np.floating], *, draws: int = 9999, seed: int = 0) -> Array:
    """Two-sided p-value of a mean difference by random sign flips: differences [samples, ...] → [...].

    If the two explainers are alike, every sample's difference could as well have had the other sign. p is the share of
    sign patterns whose mean is at least as far from 0 as the one seen, which counts as one of them: (count + 1) /
    (draws + 1), never 0. Keep 1/(draws + 1) below 0.05 / (number of comparisons) where Holm's correction follows.

    Raises: ValueError as ``bootstrap_means``.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n = len(differences)

    def signs(random: np.random.Generator) -> Array:
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-n // 8)), dtype=np.uint8), count=n)
        return (2.0 * bits - 1.0) / n

    flipped = np.abs(_weighted_sums(differences, signs, draws, seed))
    seen = np.abs(differences.mean(axis=0))
    tolerance = _ROUNDING * np.abs(differences).mean(axis=0)
    return ((flipped >= seen - tolerance).sum(axis=0) + 1) / (draws + 1)


def holm(p_values: NDArray[np.floating]) -> Array:
    """Holm's (1979) correction of a family of m p-values, [m] → [m] in the same order.

    The i-th smallest becomes the largest of (m − j + 1)·p_j over j ≤ i, at most 1. Rejecting what is at most α then
    keeps the chance of any false rejection in the family at α or below.

    Raises:
        ValueError: not one row of numbers in 0..1.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("Holm's correction takes one row of p-values in 0..1")
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _nested_means(values: NDArray[np.floating], shared_samples: bool, resamples: int, seed: int) -> Array:
    """Means of two-level resamples: values [seeds, samples, ...] → [resamples, ...]."""
    seeds, samples = values.shape[:2]

    def weights(random: np.random.Generator) -> Array:
        drawn_seeds = random.integers(seeds, size=(seeds, 1))
        drawn_samples = random.integers(samples, size=(1 if shared_samples else seeds, samples))
        counts = np.bincount((drawn_seeds * samples + drawn_samples).ravel(), minlength=seeds * samples)
        return counts / (seeds * samples)

    return _weighted_sums(values.reshape(seeds * samples, *values.shape[2:]), weights, resamples, seed)


def _weighted_sums(
    values: NDArray[np.floating], weights: Callable[[np.random.Generator], Array], draws: int, seed: int
) -> Array:
    """For every draw of one weight a row, the weighted sum of the rows: values [rows, ...] → [draws, ...]."""
    if not len(values):
        raise ValueError("there is no sample to take a mean of")
    if draws < 1:
        raise ValueError(f"{draws} resamples or draws are asked for: it takes at least one draw")
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    if not np.isfinite(table).all():
        raise ValueError(
            f"the value of row {np.argwhere(~np.isfinite(table))[0, 0]} is not finite: leave it out before"
        )
    random = np.random.default_rng(seed)
    chunk = max(1, CHUNK_NUMBERS // len(table))
    sums = np.empty((draws, table.shape[1]))
    for start in range(0, draws, chunk):
        rows = [weights(random) for _ in range(min(chunk, draws - start))]
        sums[start : start + chunk] = np.stack(rows) @ table
    return sums.reshape(draws, *values.shape[1:])


def _percentile_interval(means: Array) -> Array:
    return np.quantile(means, [0.025, 0.975], axis=0)
