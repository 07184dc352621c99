"""Agreement between the scores of single tokens and the effects of removing them (docs/method.md, Measures).

The effect of a token is p(x) − p(x without the token). p is the reader's response: for VQA, the probability of the
answer predicted from the full input x. If a measure is not defined for a sample, its value is NaN; reports leave such
samples out and give their number.
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
from perturbation.removal.order import check_scores, removal_order, single_masks
from perturbation.removal.reader import Modality, Read, SubsetOutputs, Subsets
from perturbation.report.rows import summary_rows


class Faithfulness(Measure):
    """The faithfulness violation test, and the correlations of scores and single-token effects.

    Args:
        wanted: False turns the measure off.
        seed: Seed of the bootstrap.
    """

    def __init__(self, wanted: bool = True, seed: int = 0):
        self.wanted, self.seed = wanted, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Ask for the full samples, and for the samples without each single token."""
        if not self.wanted:
            return {}
        return single_removals({modality: tokens.removable for modality, tokens in batch.tokens.items()})

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Record violation and correlations of every sample; see ``single_token_columns``."""
        if not outputs:
            return []
        full = outputs[FULL].responses[:, 0]
        return [
            Rows(
                EFFECTS,
                about_row(modality, scored_by),
                single_token_columns(scores, tokens.removable, full, outputs[modality,].responses, ties),
            )
            for modality, tokens in batch.tokens.items()
            for ties in [batch.ties(modality)]
            for scored_by, scores in tokens.scores.items()
        ]

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return ``faithfulness``: violation rate and mean correlations, one row per explainer and modality."""
        if not self.wanted or EFFECTS not in tables:
            return {}
        return {"faithfulness": summary_rows(tables[EFFECTS], ("violation", "pearson", "spearman"), self.seed)}


def single_removals(removable: Mapping[Modality, Mask]) -> dict[Name, Subsets]:
    """Return the requests for the full samples, and for the samples without each single token of each modality.

    Args:
        removable: bool [B, n] by modality; nothing is removed for a token that is not removable.
    """
    singles = {(modality,): Subsets.only(modality, single_masks(mask)) for modality, mask in removable.items()}
    return {FULL: Subsets(), **singles}


def single_effects(outputs: Mapping[Name, SubsetOutputs], modality: Modality) -> Array:
    """Return the effects p(x) − p(x without token i), [B, n], from the outputs for :func:`single_removals`."""
    return outputs[FULL].responses - outputs[modality,].responses


def single_token_columns(scores: Array, removable: Mask, full: Array, without: Array, ties: Array) -> dict[str, Array]:
    """Return the columns of B samples: ``full``, ``violation``, ``pearson`` and ``spearman``, [B] each.

    Args:
        scores: [B, n].
        removable: bool [B, n].
        full: [B], p(x).
        without: [B, n], p(x without each token).
        ties: [B, n], from ``ExplainedBatch.ties``.
    """
    strongest = np.maximum(strongest_tokens(scores, removable, ties), 0)[:, None]
    effects = full[:, None] - without
    return {
        "full": full,
        "violation": violations(scores, removable, full, np.take_along_axis(without, strongest, axis=1)[:, 0], ties),
        "pearson": pearson(scores, effects, removable),
        "spearman": spearman(scores, effects, removable),
    }


def strongest_tokens(scores: NDArray[np.floating], removable: NDArray[np.bool_], ties: Array) -> NDArray[np.intp]:
    """Return the removable token with the largest absolute score of every sample, int [B].

    The token with the lowest number in ``ties`` wins among equal ones; the value is −1 if no token is removable. The
    mask that removes only this token is ``np.arange(n) != strongest[:, None]``.

    Args:
        scores: [B, n].
        removable: bool [B, n].
        ties: [B, n], from ``ExplainedBatch.ties``.

    Raises:
        UserError: The score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit.
    """
    first = removal_order(np.abs(scores), removable, "positive", ties)[:, 0]
    return np.where(removable.any(axis=-1), first, -1)


def violations(
    scores: NDArray[np.floating],
    removable: NDArray[np.bool_],
    full: NDArray[np.floating],
    without_strongest: NDArray[np.floating],
    ties: Array,
) -> Array:
    """Return 1 if the strongest token's score and effect have opposite signs, else 0, [B] (Liu et al. 2022).

    This is the faithfulness violation test: with k = argmax |s| over the removable tokens and e = p(x) − p(x without
    k), a violation is s_k·e < 0. A token without effect is no violation. For explainers without negative scores, a
    violation means that the top token works against the answer. Only the sign of e counts, however small e is, so both
    probabilities should be computed in the same way. The value is NaN if no token is removable.

    Args:
        scores: [B, n], w.
        removable: bool [B, n].
        full: [B], p(x).
        without_strongest: [B], p(x without k), with k from ``strongest_tokens``; ignored if no token is removable.
        ties: [B, n], the same as for ``strongest_tokens``.

    Raises:
        UserError: The score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit, or a probability is not finite.
    """
    strongest = strongest_tokens(scores, removable, ties)
    defined = strongest >= 0
    if full.shape != defined.shape or without_strongest.shape != defined.shape:
        raise ValueError(
            f"probabilities of shape {full.shape} and {without_strongest.shape} must be one per sample, {defined.shape}"
        )
    effect = np.asarray(full, dtype=np.float64) - without_strongest
    _check_finite(effect[:, None], defined[:, None])
    score = np.take_along_axis(scores, strongest[:, None], axis=1)[:, 0]
    # Multiply the signs, not the numbers: the product of two small numbers may be zero.
    return np.where(defined, np.sign(score) * np.sign(effect) < 0, np.nan)


def pearson(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> Array:
    """Return the correlation of scores and effects over the removable tokens of every sample, [B].

    The value is NaN if it is not defined: fewer than two removable tokens, or all scores or all effects equal.

    Args:
        scores: [B, n].
        effects: [B, n], the effect of removing each token.
        removable: bool [B, n].

    Raises:
        UserError: The score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit, or the effect of a removable token is not finite.
    """
    _check_effects(scores, effects, removable)
    return _correlate_samples(scores, effects, removable, _pearson)


def spearman(scores: NDArray[np.floating], effects: NDArray[np.floating], removable: NDArray[np.bool_]) -> Array:
    """Return the rank correlation of scores and effects; equal values share the mean of their ranks.

    Shapes, NaN and errors are those of :func:`pearson`.
    """
    _check_effects(scores, effects, removable)
    return _correlate_samples(scores, effects, removable, _spearman)


def _correlate_samples(
    scores: NDArray[np.floating],
    effects: NDArray[np.floating],
    removable: NDArray[np.bool_],
    correlation: Callable[[Array, Array], Array],
) -> Array:
    """Return the correlation over the removable tokens of each sample, [B].

    Samples with the same number of removable tokens are computed together.
    """
    found = np.full(len(scores), np.nan)
    counts = removable.sum(axis=1)
    for count in set(counts.tolist()) - {0, 1}:
        rows = counts == count
        own = removable[rows]
        found[rows] = correlation(*(each[rows][own].reshape(-1, count) for each in (scores, effects)))
    return found


def _pearson(first: Array, second: Array) -> Array:
    """Return the correlation of each row: [R, n] each → [R]; NaN if all values of a row are equal."""
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
        raise ValueError(f"effects of shape {effects.shape} must have the shape of the scores, {used.shape}")
    broken = used & ~np.isfinite(effects)
    if broken.any():
        raise ValueError(f"the effect of a token of sample {np.argwhere(broken)[0, 0]} is not finite")
