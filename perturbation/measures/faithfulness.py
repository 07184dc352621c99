"""Do the scores of single tokens agree with what removing these tokens does?

Both measures read effects: p(x) − p(x without the token), where p is the probability of the answer predicted from the
full input x.
A sample for which a measure is not defined gets NaN; ``summarize`` leaves it out and counts it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perturbation.removal.order import check_scores

Array = NDArray[np.float64]


def strongest_tokens(scores: NDArray[np.floating], removable: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The removable token with the largest |score| of every sample, int [B]; −1 where no token is removable.

    The first of several equal ones. ``np.arange(n) != strongest[:, None]`` are the tokens to keep for its effect.

    Args and raises: as ``perturbation.removal.order.check_scores``.
    """
    check_scores(scores, removable)
    sizes = np.where(removable, np.abs(np.asarray(scores, dtype=np.float64)), -1.0)
    return np.where(removable.any(axis=-1), sizes.argmax(axis=-1), -1)


def violations(
    scores: NDArray[np.floating],
    removable: NDArray[np.bool_],
    full: NDArray[np.floating],
    without_strongest: NDArray[np.floating],
) -> Array:
    """Faithfulness violation test: 1 where the strongest token's score and effect have opposite signs, else 0; [B].

    Liu et al. 2022: k = argmax |w| over the removable tokens, Δ = p(x) − p(x without k), a violation is w_k·Δ < 0. No
    effect is no violation. For explainers without negative scores it asks only whether the top token works against the
    answer. Δ counts by its sign however small it is, so both p should come from the same numerics. NaN where no token
    is removable.

    Args:
        scores, removable: [B, n], as ``strongest_tokens``.
        full: [B], p(x).
        without_strongest: [B], p(x without k), k from ``strongest_tokens``; not read where there is none.

    Raises: as ``perturbation.removal.order.check_scores``; ValueError where a probability is missing or not finite.
    """
    strongest = strongest_tokens(scores, removable)
    defined = strongest >= 0
    if full.shape != defined.shape or without_strongest.shape != defined.shape:
        raise ValueError(
            f"probabilities {full.shape} and {without_strongest.shape} must be one a sample, {defined.shape}"
        )
    effect = np.asarray(full, dtype=np.float64) - without_strongest
    _check_finite(effect[:, None], defined[:, None])
    score = np.take_along_axis(scores, strongest[:, None], axis=1)[:, 0]
    # The signs, not the product: two small numbers may multiply to zero.
    return np.where(defined, np.sign(score) * np.sign(effect) < 0, np.nan)


def pearson(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> Array:
    """Correlation of scores and single-token effects over the removable tokens of every sample: [B, n] each → [B].

    NaN where it is not defined: fewer than two removable tokens, or all scores or all effects equal.

    Raises: as ``perturbation.removal.order.check_scores``; ValueError where an effect of a removable token is not
    finite.
    """
    _check_effects(scores, effects, removable)
    rows = zip(scores, effects, removable, strict=True)
    return np.array([_correlation(score[keep], effect[keep]) for score, effect, keep in rows], dtype=np.float64)


def spearman(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> Array:
    """Rank correlation of scores and effects, as ``pearson``; equal values share the mean of their ranks."""
    _check_effects(scores, effects, removable)
    rows = zip(scores, effects, removable, strict=True)
    ranked = [_correlation(_mean_ranks(score[keep]), _mean_ranks(effect[keep])) for score, effect, keep in rows]
    return np.array(ranked, dtype=np.float64)


class Summary(NamedTuple):
    """The mean over the samples for which a measure is defined (NaN if there is none), and the numbers of samples."""

    mean: float
    samples: int
    left_out: int


def summarize(values: NDArray[np.floating]) -> Summary:
    """Mean, number of samples in it, and number left out as not defined (NaN), of one value a sample, [B]."""
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else float("nan")
    return Summary(mean, len(defined), len(values) - len(defined))


def _mean_ranks(values: NDArray[np.floating]) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.clip(_unit(first) @ _unit(second), -1.0, 1.0))


def _unit(values: NDArray[np.floating]) -> Array:
    centred = np.asarray(values, dtype=np.float64) - np.mean(values, dtype=np.float64)
    # Scores may be so small that their squares vanish.
    centred /= np.abs(centred).max()
    return centred / np.linalg.norm(centred)


def _check_effects(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> None:
    check_scores(scores, removable)
    _check_finite(effects, removable)


def _check_finite(effects: NDArray[np.floating], used: NDArray[np.bool_]) -> None:
    if effects.shape != used.shape:
        raise ValueError(f"effects {effects.shape} do not fit the {used.shape} that the scores ask for")
    broken = used & ~np.isfinite(effects)
    if broken.any():
        raise ValueError(f"the effect of a token of sample {np.argwhere(broken)[0, 0]} is not finite")
