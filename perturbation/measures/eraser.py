"""Comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER; docs/method.md, Measures).

To add a similar measure, copy this file: a subclass of :class:`~perturbation.measures.base.Measure` with ``ask``,
``record`` and ``report``, and ``configs/measure/NAME.yaml`` (see :mod:`perturbation.measures`). In the copy, rename
the class (and ``_target_`` in the YAML file), give the table a new name instead of ``EFFECTS``, give the report and the
error a new key instead of ``eraser``, and write the shares as numbers in the YAML file. Two measures must not record
different values in the same column of the same table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipmapper.errors import UserError
from perturbation.arrays import Array
from perturbation.measures.base import EFFECTS, FULL, ExplainedBatch, Measure, Name, Rows, about_row
from perturbation.removal.order import kept_masks
from perturbation.removal.reader import Read, SubsetOutputs, Subsets
from perturbation.report.rows import Row, groups, intervals, matrix, over_seeds


class Eraser(Measure):
    """The drop in probability when the top-scored tokens are removed, and when only these are kept.

    Args:
        shares: Shares of the removable tokens that count as top tokens, each above 0 and at most 1; an empty list turns
            the measure off.
        seed: Seed of the bootstrap.
    """

    def __init__(self, shares: Sequence[float], seed: int = 0):
        if any(not isinstance(share, Real) or not 0 < share <= 1 for share in shares):
            raise UserError(f"eraser={shares}: the shares must be above 0 and at most 1")
        self.shares, self.seed = shares, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Ask for the full samples, and for each share the samples without the top tokens and with only these."""
        if not self.shares:
            return {}
        requests: dict[Name, Subsets] = {FULL: Subsets()}
        for modality, tokens in batch.tokens.items():
            ties = batch.ties(modality)
            for scored_by, scores in tokens.scores.items():
                masks = eraser_masks(scores, tokens.removable, self.shares, ties)
                requests |= {
                    (modality, scored_by, kind): Subsets.only(modality, kept) for kind, kept in masks._asdict().items()
                }
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Record the response to the full sample, [B], and to the two kinds of subsets, [B, F] each."""
        if not outputs:
            return []
        full = outputs[FULL].responses[:, 0]
        rows = []
        for modality, tokens in batch.tokens.items():
            for scored_by in tokens.scores:
                responses = {kind: outputs[modality, scored_by, kind].responses for kind in EraserMasks._fields}
                rows.append(Rows(EFFECTS, about_row(modality, scored_by), {"full": full, **responses}))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return ``eraser``: the means at every share and over all shares, one row per explainer and modality."""
        if not self.shares or EFFECTS not in tables:
            return {}
        return {"eraser": eraser_rows(tables[EFFECTS], self.shares, self.seed)}


class EraserMasks(NamedTuple):
    """Kept masks for comprehensiveness (``without_top``) and sufficiency (``only_top``), bool [B, F, n] each."""

    without_top: NDArray[np.bool_]
    only_top: NDArray[np.bool_]


def eraser_masks(
    scores: NDArray[np.floating], removable: NDArray[np.bool_], shares: Sequence[float], ties: Array
) -> EraserMasks:
    """Return the kept masks at F shares of the removable tokens.

    The top tokens are the ceil(share·n) highest-scored of a sample's n removable tokens; equal scores are ordered by
    ``ties``. ``without_top`` keeps all other tokens, like the positive order at the step ``share``. ``only_top`` keeps
    the top tokens and those that are not removable. It differs from the negative order at the step 1 − share, which
    rounds in the other direction and removes the first of equal scores instead of keeping it. A sample without
    removable tokens keeps everything in both masks, so both its measures are 0.

    Args:
        scores: [B, n], any scale.
        removable: bool [B, n].
        shares: F shares, each above 0 and at most 1.
        ties: [B, n], from ``ExplainedBatch.ties``.

    Raises:
        UserError: The score of a removable token is NaN or infinite.
        ValueError: The shapes or types of the arrays do not fit.
    """
    without_top = kept_masks(scores, removable, shares, "positive", ties)
    return EraserMasks(without_top, ~without_top | ~removable[:, None, :])


def comprehensiveness(full: NDArray[np.floating], without_top: NDArray[np.floating]) -> Array:
    """Return p(full) − p(without the top tokens), [B, F] (DeYoung et al. 2020, Eq. 1).

    A high value means that the answer needs the tokens that the explanation scores highest. p is always the probability
    of the answer predicted from the full input. The result has one number per share; the paper also averages over
    shares.

    Args:
        full: [B], the probability with every token.
        without_top: [B, F], the probabilities for ``eraser_masks(...).without_top``.

    Raises:
        ValueError: The shapes do not fit.
    """
    return _drop(full, without_top)


def sufficiency(full: NDArray[np.floating], only_top: NDArray[np.floating]) -> Array:
    """Return p(full) − p(only the top tokens), [B, F] (DeYoung et al. 2020, Eq. 2).

    A low value means that the tokens that the explanation scores highest suffice for the answer.

    Args:
        full: [B], the probability with every token.
        only_top: [B, F], the probabilities for ``eraser_masks(...).only_top``.

    Raises:
        ValueError: The shapes do not fit.
    """
    return _drop(full, only_top)


def eraser_rows(measured: pa.Table, shares: Sequence[float], seed: int) -> list[Row]:
    """Return mean comprehensiveness and sufficiency at every share and over all shares.

    Args:
        measured: The records, with the columns ``full``, ``without_top`` and ``only_top``.
        shares: The shares of the tokens.
        seed: Seed of the bootstrap.

    Returns:
        One row per explainer and modality.
    """
    kinds = {"comprehensiveness": ("without_top", comprehensiveness), "sufficiency": ("only_top", sufficiency)}
    rows, samples = [], []
    for explainer, modality, table in groups(measured):
        row: Row = {"explainer": explainer, "modality": modality, "shares": list(shares)}
        for name, (column, drop) in kinds.items():
            each = drop(table["full"].to_numpy(), matrix(table, column))
            values = over_seeds(each, table["seed"].to_numpy())
            row |= {name: values.mean(axis=0).tolist(), f"mean_{name}": float(values.mean())}
            samples.append(values.mean(axis=1))
        rows.append(row)
    found = iter(intervals(samples, seed))
    return [row | {f"mean_{name}_ci95": next(found) for name in kinds} for row in rows]


def _drop(full: NDArray[np.floating], masked: NDArray[np.floating]) -> Array:
    if full.ndim != 1 or masked.ndim != 2 or len(full) != len(masked):
        raise ValueError(f"full {full.shape} must be [B], and the masked probabilities {masked.shape} must be [B, F]")
    return np.asarray(full, dtype=np.float64)[:, None] - masked
