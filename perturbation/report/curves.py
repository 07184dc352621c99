"""Curves over the removal steps, of one run or of several: their areas, the gaps between them, paired comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perturbation.arrays import Array
from perturbation.report.rows import Row, matrix, over_seeds
from perturbation.statistics import bootstrap_interval, holm, seed_interval, sign_flip_p_value

# The name in reports of a recorded value that has another one there.
REPORTED = {"correct": "accuracy"}


def areas(curves: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Area under every curve by the trapezoid rule over the step fractions, in percent: [..., S] → [...].

    Values and steps in 0..1 give areas in 0..100 where the steps run from 0 to 1. The first step, 0, is the unmasked
    point and counts. Steps need not be evenly spaced: each piece is as wide as its two steps are apart.

    Raises:
        ValueError: the last axis is not S long, there are fewer than two steps, or a value is NaN or infinite.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if len(steps) < 2 or curves.shape[-1:] != (len(steps),):
        raise ValueError(
            f"curves {curves.shape} need a last axis as long as the steps, of which {len(steps)} are given"
        )
    if not np.isfinite(curves).all():
        raise ValueError(
            f"the curve at {np.argwhere(~np.isfinite(curves))[0].tolist()} (the last is the step) is not finite"
        )
    half_widths = np.diff(np.asarray(steps, dtype=np.float64)) / 2
    weights = np.append(half_widths, 0.0) + np.append(0.0, half_widths)
    return 100 * (curves @ weights)


def area_under_mean(curves: NDArray[np.floating], steps: Sequence[float]) -> float:
    """Area under the mean curve of all samples, in percent: curves [samples, S].

    The area is linear in the curve, so this is also the mean of the samples' own areas, and intervals and tests may be
    made from those (``perturbation.statistics``).

    Raises: ValueError as ``areas``, and where there is no sample.
    """
    if curves.ndim != 2 or not len(curves):
        raise ValueError(f"curves {curves.shape} must be [samples, S] with at least one sample")
    return float(areas(curves.mean(axis=0, dtype=np.float64), steps))


def direction_gaps(positive: NDArray[np.floating], negative: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Every sample's area of the negative curve less that of the positive one, in percent: two [..., S] → [...].

    Large is faithful; 0 is what an order that knows nothing gets on average.

    Raises: ValueError as ``areas``, and where the two have different shapes.
    """
    if positive.shape != negative.shape:
        raise ValueError(f"positive {positive.shape} and negative {negative.shape} curves differ in shape")
    return areas(negative, steps) - areas(positive, steps)


@dataclass(frozen=True)
class Curves:
    """Samples' curves over the steps, [runs, samples, S], by value; random orders are averaged over their seeds.

    The runs test models trained from different seeds on the same samples; mostly there is one.
    """

    values: dict[tuple[str, str, str], dict[str, Array]]  #: by (explainer, modality, direction)
    steps: Sequence[float]
    seed: int  #: of the resampling

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """Explainer, modality and direction, in the order of the records."""
        return list(self.values)

    @property
    def samples(self) -> int:
        return int(next(iter(self.values.values()))[self.value_names[0]].shape[1])

    @property
    def value_names(self) -> list[str]:
        """What the curves are of; the first is looked at first."""
        return list(next(iter(self.values.values())))

    def explainers(self) -> list[str]:
        return list(dict.fromkeys(key[0] for key in self.values))

    def modalities(self) -> list[str]:
        return list(dict.fromkeys(key[1] for key in self.values))

    def directions(self) -> list[str]:
        return list(dict.fromkeys(key[2] for key in self.values))


def value_columns(samples: pa.Table) -> dict[str, str]:
    """The columns that hold a number a step, by their names in reports."""
    numbers = [field.name for field in samples.schema if field.type == pa.list_(pa.float64())]
    return {REPORTED.get(name, name): name for name in numbers}


def curves_of(runs: Sequence[pa.Table], steps: Sequence[float], seed: int) -> Curves:
    """The curves of the ``samples.parquet`` of one run, or of several on the same samples."""
    each = [curves_of_run(samples) for samples in runs]
    values = {key: {name: np.stack([run[key][name] for run in each]) for name in each[0][key]} for key in each[0]}
    return Curves(values, steps, seed)


def curves_of_run(samples: pa.Table) -> dict[tuple[str, str, str], dict[str, Array]]:
    """One run's curves [samples, S], by explainer, modality and direction, and by value."""
    columns = [np.asarray(samples[name].to_pylist()) for name in ("explainer", "modality", "direction")]
    seeds = samples["seed"].to_numpy()
    stacked = {name: matrix(samples, column) for name, column in value_columns(samples).items()}
    values = {}
    for key in dict.fromkeys(zip(*(column.tolist() for column in columns), strict=True)):
        rows = np.logical_and.reduce([column == part for column, part in zip(columns, key, strict=True)])
        values[key] = {name: over_seeds(every[rows], seeds[rows]) for name, every in stacked.items()}
    return values


def area_rows(curves: Curves, about: Mapping[str, str]) -> list[Row]:
    """One row for every explainer, modality and direction, with the mean curves, their areas and 95 % intervals.

    A value's area is ``{value}_auc``, and ``auc`` is the first value's; that of the accuracy has only this name.
    ``about``: what every row says of the run.
    """
    rows: list[Row] = []
    for explainer, modality, direction in curves.keys:
        row: Row = {"explainer": explainer, **about, "modality": modality}
        rows.append(row | {"direction": direction, "samples": curves.samples, "steps": list(curves.steps)})
    for name in curves.value_names:
        prefix = "" if name == "accuracy" else f"{name}_"
        values = np.stack([by_name[name] for by_name in curves.values.values()], axis=2)
        bands = _interval(values, curves.seed)
        intervals = _interval(areas(values, curves.steps), curves.seed)
        for k, row in enumerate(rows):
            row[name] = values[:, :, k].mean(axis=(0, 1)).tolist()
            row[f"{name}_ci95"] = bands[:, k].tolist()
            row[f"{prefix}auc"] = area_under_mean(values[:, :, k].mean(axis=0), curves.steps)
            row[f"{prefix}auc_ci95"] = intervals[:, k].tolist()
            if name == curves.value_names[0]:
                row |= {"auc": row[f"{prefix}auc"], "auc_ci95": row[f"{prefix}auc_ci95"]}
    return rows


def gap_rows(curves: Curves) -> list[Row]:
    """The area of the negative curve less that of the positive one; none where one direction only was tested."""
    found = [(*pair, name, _gaps(curves, *pair, name)) for pair in _pairs_of(curves) for name in curves.value_names]
    if not found:
        return []
    intervals = _interval(np.stack([gaps for *_, gaps in found], axis=2), curves.seed)
    return [
        {"explainer": e, "modality": m, "measure": name, "gap": float(gaps.mean()), "gap_ci95": interval.tolist()}
        for (e, m, name, gaps), interval in zip(found, intervals.T, strict=True)
    ]


def comparison_rows(curves: Curves) -> list[Row]:
    """Every two explainers on the same samples: first less second, in percent, with a permutation test.

    ``p_holm`` is corrected over all pairs of the same modality, direction and measure. The direction ``gap`` is
    negative less positive. With several runs, ``difference`` is their mean, ``runs`` has each run's, and the test takes
    every sample's mean over the runs.
    """
    pairs = list(itertools.combinations(curves.explainers(), 2))
    directions = [*curves.directions(), "gap"] if _pairs_of(curves) else curves.directions()
    tests = list(itertools.product(curves.modalities(), curves.value_names, directions))
    if not pairs:
        return []
    differences = []
    for test in tests:
        of = {explainer: _areas(curves, explainer, *test) for explainer in curves.explainers()}
        differences += [(of[first], of[second]) for first, second in pairs]
    first, second = (np.stack(side, axis=2) for side in zip(*differences, strict=True))
    found = first - second
    intervals = _interval(found, curves.seed)
    p_values = sign_flip_p_value(found.mean(axis=0), seed=curves.seed)
    corrected = np.concatenate([holm(family) for family in p_values.reshape(len(tests), -1)])
    return [
        {
            **dict(zip(("modality", "measure", "direction"), test, strict=True)),
            **dict(zip(("first", "second"), pair, strict=True)),
            "difference": float(found[:, :, k].mean()),
            "ci95": intervals[:, k].tolist(),
            "runs": found[:, :, k].mean(axis=1).tolist(),
            "p": float(p_values[k]),
            "p_holm": float(corrected[k]),
        }
        for k, (test, pair) in enumerate(itertools.product(tests, pairs))
    ]


def _areas(curves: Curves, explainer: str, modality: str, name: str, direction: str) -> Array:
    """Every sample's area, or gap, in percent, [runs, samples]."""
    if direction == "gap":
        return _gaps(curves, explainer, modality, name)
    return areas(curves.values[explainer, modality, direction][name], curves.steps)


def _pairs_of(curves: Curves) -> list[tuple[str, str]]:
    """Explainer and modality where both directions were tested."""
    if len(curves.directions()) < 2:
        return []
    return list(dict.fromkeys((explainer, modality) for explainer, modality, _ in curves.keys))


def _gaps(curves: Curves, explainer: str, modality: str, name: str) -> Array:
    positive, negative = (curves.values[explainer, modality, d][name] for d in ("positive", "negative"))
    return direction_gaps(positive, negative, curves.steps)


def _interval(values: Array, seed: int) -> Array:
    """95 % interval of the mean over runs and samples: [runs, samples, ...] → [2, ...]."""
    if len(values) == 1:
        return bootstrap_interval(values[0], seed=seed)
    return seed_interval(values, shared_samples=True, seed=seed)
