"""Functions that turn recorded tables into the rows of reports; all measures may use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perturbation.arrays import Array
from perturbation.statistics import bootstrap_interval

Row = dict[str, Any]


def groups(table: pa.Table) -> list[tuple[str, str, pa.Table]]:
    """Return (explainer, modality, their rows) for every pair of both, in the order of the records."""
    explainers, modalities = table["explainer"].to_pylist(), table["modality"].to_pylist()
    found = []
    for explainer, modality in dict.fromkeys(zip(explainers, modalities, strict=True)):
        same = [e == explainer and m == modality for e, m in zip(explainers, modalities, strict=True)]
        found.append((explainer, modality, table.filter(pa.array(same))))
    return found


def matrix(table: pa.Table, column: str) -> Array:
    """Return a column of lists of equal length as an array, [rows, length]."""
    values = table[column].combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float64).reshape(table.num_rows, -1)


def over_seeds(values: Array, seeds: Array) -> Array:
    """Return the mean over seeds: values [rows, ...] → [samples, ...].

    Args:
        values: One row per seed and sample; the samples must have the same order for every seed.
        seeds: The seed of each row, [rows].
    """
    return np.mean([values[seeds == seed] for seed in np.unique(seeds)], axis=0)


def intervals(columns: Sequence[Array], seed: int) -> list[list[float]]:
    """Return the 95 % bootstrap interval of each column's mean over the samples where the column is defined.

    Columns that are defined for the same samples share their resamples.

    Args:
        columns: One value per sample, [samples] each; NaN if it is not defined.
        seed: Seed of the bootstrap.
    """
    defined = [~np.isnan(column) for column in columns]
    found: dict[int, list[float]] = {}
    for mask in {each.tobytes(): each for each in defined}.values():
        places = [k for k, each in enumerate(defined) if (each == mask).all()]
        values = np.stack([columns[k][mask] for k in places], axis=1)
        interval = bootstrap_interval(values, seed=seed) if len(values) else np.full((2, len(places)), np.nan)
        found |= zip(places, interval.T.tolist(), strict=True)
    return [found[k] for k in range(len(columns))]


class Summary(NamedTuple):
    """The mean of a measure, and its numbers of samples."""

    mean: float  #: mean over the samples for which the measure is defined; NaN if there is none
    samples: int  #: number of these samples
    left_out: int  #: number of samples for which the measure is not defined


def summarize(values: NDArray[np.floating]) -> Summary:
    """Summarise one value per sample, [B], which is NaN if it is not defined."""
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else float("nan")
    return Summary(mean, len(defined), len(values) - len(defined))


def summary_rows(table: pa.Table, names: Sequence[str], seed: int) -> list[Row]:
    """Return one row per explainer and modality, with the ``Summary`` and the 95 % interval of each column.

    Args:
        table: The records, with the columns ``explainer``, ``modality``, ``seed`` and those in ``names``.
        names: The columns to summarise.
        seed: Seed of the bootstrap.
    """
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
