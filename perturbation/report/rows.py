"""From the columns of recorded tables to the rows of reports: what the measures' reports share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perturbation.arrays import Array
from perturbation.statistics import bootstrap_interval

Row = dict[str, Any]


def groups(table: pa.Table) -> list[tuple[str, str, pa.Table]]:
    """Explainer, modality and their rows, in the order of the records."""
    explainers, modalities = table["explainer"].to_pylist(), table["modality"].to_pylist()
    found = []
    for explainer, modality in dict.fromkeys(zip(explainers, modalities, strict=True)):
        same = [e == explainer and m == modality for e, m in zip(explainers, modalities, strict=True)]
        found.append((explainer, modality, table.filter(pa.array(same))))
    return found


def matrix(table: pa.Table, column: str) -> Array:
    """A column of lists of one length, [rows, length]."""
    values = table[column].combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float64).reshape(table.num_rows, -1)


def over_seeds(values: Array, seeds: Array) -> Array:
    """The mean over seeds: [rows, …] with the samples in one order under every seed → [samples, …]."""
    return np.mean([values[seeds == seed] for seed in np.unique(seeds)], axis=0)


def intervals(columns: Sequence[Array], seed: int) -> list[list[float]]:
    """Each column's interval over the samples where it is defined; columns defined on the same samples share theirs."""
    defined = [~np.isnan(column) for column in columns]
    found: dict[int, list[float]] = {}
    for mask in {each.tobytes(): each for each in defined}.values():
        places = [k for k, each in enumerate(defined) if (each == mask).all()]
        values = np.stack([columns[k][mask] for k in places], axis=1)
        interval = bootstrap_interval(values, seed=seed) if len(values) else np.full((2, len(places)), np.nan)
        found |= zip(places, interval.T.tolist(), strict=True)
    return [found[k] for k in range(len(columns))]


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


def summary_rows(table: pa.Table, names: Sequence[str], seed: int) -> list[Row]:
    """One row for every explainer and modality: each column's ``Summary`` over the samples where it is defined."""
    grouped = groups(table)
    values = [
        over_seeds(rows[name].to_numpy()[:, None], rows["seed"].to_numpy())[:, 0]
        for *_, rows in grouped
        for name in names
    ]
    pairs = zip(values, intervals(values, seed), strict=True)
    found = iter({**summarize(each)._asdict(), "ci95": interval} for each, interval in pairs)
    return [
        {"explainer": explainer, "modality": modality} | {name: next(found) for name in names}
        for explainer, modality, _ in grouped
    ]


def finite(value: Any) -> Any:
    """The value with None for every number that is NaN or infinite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
