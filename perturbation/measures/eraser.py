"""Comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER)."""

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
    """Reads every sample without its top shares of the tokens, and with these alone.

    Args:
        shares: of the removable tokens, each above 0 and at most 1; none leaves the measure out.
        seed: of the resampling.
    """

    def __init__(self, shares: Sequence[float], seed: int = 0):
        if any(not isinstance(share, Real) or not 0 < share <= 1 for share in shares):
            raise UserError(f"eraser={shares}: the shares must be above 0 and at most 1")
        self.shares, self.seed = shares, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        if not self.shares:
            return {}
        requests: dict[Name, Subsets] = {FULL: Subsets()}
        for modality, tokens in batch.tokens.items():
            for scored_by, scores in tokens.scores.items():
                masks = eraser_masks(scores, tokens.removable, self.shares)
                requests |= {
                    (modality, scored_by, kind): Subsets.only(modality, kept) for kind, kept in masks._asdict().items()
                }
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        if not outputs:
            return []
        full = outputs[FULL].responses[:, 0]
        rows = []
        for modality, tokens in batch.tokens.items():
            for scored_by in tokens.scores:
                drops = {kind: outputs[modality, scored_by, kind].responses for kind in EraserMasks._fields}
                rows.append(Rows(EFFECTS, about_row(modality, scored_by), {"full": full, **drops}))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """``eraser``: means at every share, and over the shares, one row for every explainer and modality."""
        if not self.shares or EFFECTS not in tables:
            return {}
        return {"eraser": eraser_rows(tables[EFFECTS], self.shares, self.seed)}


class EraserMasks(NamedTuple):
    """The inputs to read for comprehensiveness and sufficiency; bool [B, F, n], True where the token stays."""

    without_top: NDArray[np.bool_]
    only_top: NDArray[np.bool_]


def eraser_masks(scores: NDArray[np.floating], removable: NDArray[np.bool_], shares: Sequence[float]) -> EraserMasks:
    """The kept masks at F shares of the removable tokens, each above 0 and at most 1.

    The top share holds the ceil(share·n) highest of a sample's n removable tokens (``removed_count``), ties go by
    position. ``without_top`` is the positive order's mask at that step. ``only_top`` removes the other removable tokens
    instead: not the negative order at 1 − share, which rounds the other way and breaks ties otherwise. Tokens that are
    not removable stay in both. A sample without removable tokens keeps everything in both: both its measures are 0.

    Args and raises: as ``perturbation.removal.order.removal_order``.
    """
    without_top = kept_masks(scores, removable, shares, "positive")
    return EraserMasks(without_top, ~without_top | ~removable[:, None, :])


def comprehensiveness(full: NDArray[np.floating], without_top: NDArray[np.floating]) -> Array:
    """p(full) − p(without the top share), [B, F]: high where the explanation names what the answer needs.

    DeYoung et al. 2020 (ERASER), equation 1, one number a share (the paper also averages over shares). Every p is the
    probability of the answer that was predicted from the full input.

    Args:
        full: [B], probability with every token.
        without_top: [B, F], probabilities under ``eraser_masks(...).without_top``.

    Raises: ValueError where the shapes do not fit.
    """
    return _drop(full, without_top)


def sufficiency(full: NDArray[np.floating], only_top: NDArray[np.floating]) -> Array:
    """p(full) − p(only the top share), [B, F]: low where the explanation names what suffices for the answer.

    DeYoung et al. 2020, equation 2. As ``comprehensiveness``, but with the probabilities under
    ``eraser_masks(...).only_top``.
    """
    return _drop(full, only_top)


def eraser_rows(measured: pa.Table, shares: Sequence[float], seed: int) -> list[Row]:
    """Mean comprehensiveness and sufficiency at every share of the tokens, and over the shares."""
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
