"""Do the scores of single tokens agree with what removing these tokens does?

All measures here read effects: p(x) − p(x without the token), where p is the reader's response, for VQA the probability
of the answer predicted from the full input x. A sample for which a measure is not defined gets NaN; reports leave it
out and count it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from perturbation.arrays import Array, Mask
from perturbation.measures.base import EFFECTS, FULL, ExplainedBatch, Measure, Name, Rows, about_row
from perturbation.removal.order import check_scores, single_masks
from perturbation.removal.reader import Read, SubsetOutputs, Subsets
from perturbation.report.rows import summary_rows


class Faithfulness(Measure):
    """Reads every sample without each of its tokens.

    Args:
        wanted: False leaves the measure out.
        seed: of the resampling.
    """

    def __init__(self, wanted: bool = True, seed: int = 0):
        self.wanted, self.seed = wanted, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        if not self.wanted:
            return {}
        singles = {(m,): Subsets.only(m, single_masks(tokens.removable)) for m, tokens in batch.tokens.items()}
        return {FULL: Subsets(), **singles}

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        if not outputs:
            return []
        full = outputs[FULL].responses[:, 0]
        return [
            Rows(
                EFFECTS,
                about_row(modality, scored_by),
                single_token_columns(scores, tokens.removable, full, outputs[modality,].responses),
            )
            for modality, tokens in batch.tokens.items()
            for scored_by, scores in tokens.scores.items()
        ]

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """``faithfulness``: violation rate and mean correlations, one row for every explainer and modality."""
        if not self.wanted or EFFECTS not in tables:
            return {}
        return {"faithfulness": summary_rows(tables[EFFECTS], ("violation", "pearson", "spearman"), self.seed)}


def single_token_columns(scores: Array, removable: Mask, full: Array, without: Array) -> dict[str, Array]:
    """All measures of B samples: full [B] is p(x), and without [B, n] p(x without the token)."""
    strongest = np.maximum(strongest_tokens(scores, removable), 0)[:, None]
    effects = full[:, None] - without
    return {
        "full": full,
        "violation": violations(scores, removable, full, np.take_along_axis(without, strongest, axis=1)[:, 0]),
        "pearson": pearson(scores, effects, removable),
        "spearman": spearman(scores, effects, removable),
    }


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
    return _by_sample(scores, effects, removable, _pearson)


def spearman(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> Array:
    """Rank correlation of scores and effects, as ``pearson``; equal values share the mean of their ranks."""
    _check_effects(scores, effects, removable)
    return _by_sample(scores, effects, removable, _spearman)


def _by_sample(
    scores: NDArray[np.floating],
    effects: NDArray[np.floating],
    removable: NDArray[np.bool_],
    correlation: Callable[[Array, Array], Array],
) -> Array:
    """The correlation over each sample's own tokens, [B]; samples of equally many tokens are taken together."""
    found = np.full(len(scores), np.nan)
    counts = removable.sum(axis=1)
    for count in set(counts.tolist()) - {0, 1}:
        rows = counts == count
        own = removable[rows]
        found[rows] = correlation(*(each[rows][own].reshape(-1, count) for each in (scores, effects)))
    return found


def _pearson(first: Array, second: Array) -> Array:
    """[R, n] each → [R]; NaN where a row holds one value only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return np.asarray(stats.pearsonr(first, second, axis=-1).statistic)


def _spearman(first: Array, second: Array) -> Array:
    return _pearson(stats.rankdata(first, axis=-1), stats.rankdata(second, axis=-1))


def _check_effects(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> None:
    check_scores(scores, removable)
    _check_finite(effects, removable)


def _check_finite(effects: NDArray[np.floating], used: NDArray[np.bool_]) -> None:
    if effects.shape != used.shape:
        raise ValueError(f"effects {effects.shape} do not fit the {used.shape} that the scores ask for")
    broken = used & ~np.isfinite(effects)
    if broken.any():
        raise ValueError(f"the effect of a token of sample {np.argwhere(broken)[0, 0]} is not finite")
