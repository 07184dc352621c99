"""Metrics of how much of an explanation is on the evidence, for data whose answers depend on known tokens.

The metrics are those of CLEVR-XAI (Arras, Osman and Samek 2022, "CLEVR-XAI: A benchmark dataset for the ground truth
evaluation of neural network explanations") and the pointing game (Zhang et al. 2018, "Top-down neural attention by
excitation backprop"); see docs/method.md, Localisation. All take

- ``scores`` [B, n]: the explanation, any scale and sign;
- ``eligible`` bool [B, n]: the P tokens of a sample that count (no padding, no special tokens);
- ``evidence`` bool [B, n]: the K eligible tokens that are the evidence;

and return one value per sample, [B], from 0 to 1, or NaN for a sample without evidence.

Chance is K/P: the average value of every metric for scores in a random order, and the value for scores that are all
equal. An explanation thus neither gains nor loses by equal scores: they count as the average over all their orders, and
if no score is positive, the mass counts as spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbation.arrays import Array, Mask
from perturbation.removal.order import check_scores

Scores = NDArray[np.floating]


def chance(eligible: Mask, evidence: Mask) -> Array:
    """Return K/P, the average of every metric here for a random order, [B].

    Raises:
        ValueError: The shapes or types do not fit, or evidence is marked at a token that is not eligible.
    """
    _check_evidence(eligible, evidence)
    return _share(evidence.sum(1), eligible.sum(1), evidence)


def mass_accuracy(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """Return the share of the positive relevance that is on the evidence, [B]; chance if no score is positive.

    Raises:
        UserError: The score of an eligible token is NaN or infinite.
        ValueError: The shapes or types do not fit, or evidence is marked at a token that is not eligible.
    """
    mass = np.maximum(_checked_scores(scores, eligible, evidence, 0.0), 0.0)
    mass = np.where(mass.any(1, keepdims=True), mass, eligible)
    largest = mass.max(1, keepdims=True, initial=0.0)
    # Scaling by the largest keeps the sums of huge or tiny scores from overflow and underflow.
    mass = np.divide(mass, largest, out=np.zeros_like(mass), where=largest > 0)
    return _share((mass * evidence).sum(1), mass.sum(1), evidence)


def rank_accuracy(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """Return the share of the K highest-scored tokens that are evidence, [B], averaged over orders of equal scores.

    Raises:
        UserError: The score of an eligible token is NaN or infinite.
        ValueError: The shapes or types do not fit, or evidence is marked at a token that is not eligible.
    """
    ranked = _checked_scores(scores, eligible, evidence, -np.inf)
    count = evidence.sum(1)
    last = np.maximum(count - 1, 0)[:, None]
    threshold = np.take_along_axis(-np.sort(-ranked, axis=1), last, axis=1)
    above, tied = eligible & (ranked > threshold), eligible & (ranked == threshold)
    places = count - above.sum(1)  # how many of the K places the tied tokens share
    inside = (above & evidence).sum(1) + places * _share((tied & evidence).sum(1), tied.sum(1), evidence)
    return _share(inside, count, evidence)


def pointing_game(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """Return 1 if the highest-scored token is evidence, else 0, [B], averaged over tokens with the same highest score.

    Raises:
        UserError: The score of an eligible token is NaN or infinite.
        ValueError: The shapes or types do not fit, or evidence is marked at a token that is not eligible.
    """
    ranked = _checked_scores(scores, eligible, evidence, -np.inf)
    highest = eligible & (ranked == ranked.max(1, keepdims=True))
    return _share((highest & evidence).sum(1), highest.sum(1), evidence)


METRICS: dict[str, Callable[[Scores, Mask, Mask], Array]] = {
    "mass_accuracy": mass_accuracy,
    "rank_accuracy": rank_accuracy,
    "pointing_game": pointing_game,
}


def _checked_scores(scores: Scores, eligible: Mask, evidence: Mask, elsewhere: float) -> Array:
    """Check the arrays and return the scores in float64, with the value ``elsewhere`` at tokens that don't count."""
    check_scores(scores, eligible)
    _check_evidence(eligible, evidence)
    return np.where(eligible, np.asarray(scores, np.float64), elsewhere)


def _check_evidence(eligible: Mask, evidence: Mask) -> None:
    if evidence.shape != eligible.shape or evidence.dtype != np.bool_ or (evidence & ~eligible).any():
        raise ValueError(f"evidence must be bool {list(eligible.shape)}, and true only at eligible tokens")


def _share(part: NDArray[np.number], whole: NDArray[np.number], evidence: Mask) -> Array:
    """Return part / whole for each sample, and NaN for samples without evidence."""
    known = evidence.any(1)
    return np.where(known, part / np.where(known, whole, 1), np.nan)
