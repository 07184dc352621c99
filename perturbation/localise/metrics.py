"""How much of an explanation lies on the evidence, where it is known which tokens the answer depends on.

The measures of CLEVR-XAI (Arras, Osman and Samek 2022, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation
of neural network explanations") and the pointing game (Zhang et al. 2018, "Top-down neural attention by excitation
backprop"), on arrays. All take

- ``scores`` [B, n], any scale and sign;
- ``eligible`` bool [B, n]: the P tokens of a sample that take part (no padding, no special tokens);
- ``evidence`` bool [B, n]: those K of them that are ground truth;

and return one value a sample, [B], from 0 to 1. A sample without evidence has no value: NaN.

Scores in a random order, and scores that are all equal, get K/P on average by every measure: chance. An explanation
that can't tell tokens apart thus neither gains nor loses by it: equal scores count by the expectation over their
orders, and where no score is positive the mass counts as spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perturbation.arrays import Array, Mask
from perturbation.removal.order import check_scores

Scores = NDArray[np.floating]


def chance(eligible: Mask, evidence: Mask) -> Array:
    """K/P, what every measure here gives a random order on average."""
    _check_evidence(eligible, evidence)
    return _share(evidence.sum(1), eligible.sum(1), evidence)


def mass_accuracy(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """The share of positive relevance that lies inside the evidence; chance where nothing is positive.

    Raises: as ``perturbation.removal.order.check_scores``; ValueError where evidence is not eligible.
    """
    mass = np.maximum(_checked(scores, eligible, evidence, 0.0), 0.0)
    mass = np.where(mass.any(1, keepdims=True), mass, eligible)
    largest = mass.max(1, keepdims=True, initial=0.0)
    mass = np.divide(mass, largest, out=np.zeros_like(mass), where=largest > 0)  # sums of huge or tiny scores
    return _share((mass * evidence).sum(1), mass.sum(1), evidence)


def rank_accuracy(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """The share of the K highest-scored tokens that lies inside the evidence; equal scores in expectation.

    Raises: as ``mass_accuracy``.
    """
    ranked = _checked(scores, eligible, evidence, -np.inf)
    count = evidence.sum(1)
    last = np.maximum(count - 1, 0)[:, None]
    threshold = np.take_along_axis(-np.sort(-ranked, axis=1), last, axis=1)
    above, tied = eligible & (ranked > threshold), eligible & (ranked == threshold)
    places = count - above.sum(1)  # of the K, those that the tied tokens share
    inside = (above & evidence).sum(1) + places * _share((tied & evidence).sum(1), tied.sum(1), evidence)
    return _share(inside, count, evidence)


def pointing_game(scores: Scores, eligible: Mask, evidence: Mask) -> Array:
    """1 where the highest-scored token lies inside the evidence, else 0; equal scores in expectation.

    Raises: as ``mass_accuracy``.
    """
    ranked = _checked(scores, eligible, evidence, -np.inf)
    highest = eligible & (ranked == ranked.max(1, keepdims=True))
    return _share((highest & evidence).sum(1), highest.sum(1), evidence)


METRICS: dict[str, Callable[[Scores, Mask, Mask], Array]] = {
    "mass_accuracy": mass_accuracy,
    "rank_accuracy": rank_accuracy,
    "pointing_game": pointing_game,
}


def _checked(scores: Scores, eligible: Mask, evidence: Mask, elsewhere: float) -> Array:
    """The scores in float64, ``elsewhere`` at tokens that take no part."""
    check_scores(scores, eligible)
    _check_evidence(eligible, evidence)
    return np.where(eligible, np.asarray(scores, np.float64), elsewhere)


def _check_evidence(eligible: Mask, evidence: Mask) -> None:
    if evidence.shape != eligible.shape or evidence.dtype != np.bool_ or (evidence & ~eligible).any():
        raise ValueError(f"evidence must be bool {list(eligible.shape)}, and true only at eligible tokens")


def _share(part: NDArray[np.number], whole: NDArray[np.number], evidence: Mask) -> Array:
    """part / whole of each sample, NaN of those without evidence."""
    known = evidence.any(1)
    return np.where(known, part / np.where(known, whole, 1), np.nan)
