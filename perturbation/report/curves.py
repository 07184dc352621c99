"""Curves over the removal steps, their areas, the gaps between directions, and paired comparisons of explainers.

Everything here works for one run and for several runs, whose models were trained with different seeds.
"""

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

# Values whose name in reports differs from the name of their column in the records.
REPORTED = {"correct": "accuracy"}
SIGNIFICANT = 0.05  # level of the tests against controls


def areas(curves: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Return the area under every curve by the trapezoid rule, in percent: curves [..., S] → [...].

    If the values are from 0 to 1 and the steps run from 0 to 1, the areas are from 0 to 100. The first step, 0, is the
    point without removal and counts. The steps may be unevenly spaced.

    Args:
        curves: One value at every step, [..., S].
        steps: The S removed fractions.

    Raises:
        ValueError: The last axis does not have length S, there are fewer than two steps, or a value is NaN or infinite.
    """
    curves = np.asarray(curves, dtype=np.float64)
    if len(steps) < 2 or curves.shape[-1:] != (len(steps),):
        raise ValueError(
            f"curves {curves.shape} must have one value for each of the {len(steps)} steps, and at least two steps"
        )
    if not np.isfinite(curves).all():
        raise ValueError(
            f"the curve at {np.argwhere(~np.isfinite(curves))[0].tolist()} (the last index is the step) is not finite"
        )
    half_widths = np.diff(np.asarray(steps, dtype=np.float64)) / 2
    weights = np.append(half_widths, 0.0) + np.append(0.0, half_widths)
    return 100 * (curves @ weights)


def area_under_mean(curves: NDArray[np.floating], steps: Sequence[float]) -> float:
    """Return the area under the mean curve of all samples, in percent; curves are [samples, S].

    The area is linear in the curve, so this is also the mean of the areas of the samples. Intervals and tests are
    therefore computed from the areas of the samples (``perturbation.statistics``).

    Raises:
        ValueError: There is no sample, or the curves do not fit the steps (see :func:`areas`).
    """
    if curves.ndim != 2 or not len(curves):
        raise ValueError(f"curves {curves.shape} must be [samples, S] with at least one sample")
    return float(areas(curves.mean(axis=0, dtype=np.float64), steps))


def direction_gaps(positive: NDArray[np.floating], negative: NDArray[np.floating], steps: Sequence[float]) -> Array:
    """Return the area of the negative curve minus that of the positive curve, in percent: [..., S] each → [...].

    A large gap means a faithful explanation. Random orders have a gap of 0 on average.

    Raises:
        ValueError: The two shapes differ, or the curves do not fit the steps (see :func:`areas`).
    """
    if positive.shape != negative.shape:
        raise ValueError(f"positive {positive.shape} and negative {negative.shape} curves differ in shape")
    return areas(negative, steps) - areas(positive, steps)


@dataclass(frozen=True)
class Curves:
    """The curves of all samples; the curves of random orders are averaged over their seeds.

    Several runs test models of different training seeds on the same samples; usually there is one run.
    """

    #: [runs, samples, S] by (explainer, modality, direction) and then by the name of the value.
    values: dict[tuple[str, str, str], dict[str, Array]]
    steps: Sequence[float]  #: the S removed fractions
    seed: int  #: seed of the bootstrap and of the permutation tests
    controls: frozenset[str] = frozenset()  #: the explainers that are controls

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """Triples of explainer, modality and direction, in the order of the records."""
        return list(self.values)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(next(iter(self.values.values()))[self.value_names[0]].shape[1])

    @property
    def value_names(self) -> list[str]:
        """Names of the recorded values, such as ``accuracy``; the first one is the main value."""
        return list(next(iter(self.values.values())))

    def explainers(self, modality: str) -> list[str]:
        """Return the names of the explainers that score a modality, each once."""
        return list(dict.fromkeys(key[0] for key in self.values if key[1] == modality))

    def modalities(self) -> list[str]:
        """Return the tested modalities, each once."""
        return list(dict.fromkeys(key[1] for key in self.values))

    def directions(self) -> list[str]:
        """Return the tested directions, each once."""
        return list(dict.fromkeys(key[2] for key in self.values))


def value_columns(samples: pa.Table) -> dict[str, str]:
    """Return the columns that contain one number per step, by their names in reports."""
    numbers = [field.name for field in samples.schema if field.type == pa.list_(pa.float64())]
    return {REPORTED.get(name, name): name for name in numbers}


def curves_of(runs: Sequence[pa.Table], steps: Sequence[float], seed: int) -> Curves:
    """Return the curves of one or several runs on the same samples.

    Args:
        runs: The table ``samples.parquet`` of each run.
        steps: The removed fractions.
        seed: Seed of the bootstrap and of the permutation tests.
    """
    each = [curves_of_run(samples) for samples in runs]
    values = {key: {name: np.stack([run[key][name] for run in each]) for name in each[0][key]} for key in each[0]}
    controls = runs[0].filter(runs[0]["control"])["explainer"].to_pylist()
    return Curves(values, steps, seed, frozenset(controls))


def curves_of_run(samples: pa.Table) -> dict[tuple[str, str, str], dict[str, Array]]:
    """Return the curves of one run, [samples, S], by (explainer, modality, direction) and then by value."""
    columns = [np.asarray(samples[name].to_pylist()) for name in ("explainer", "modality", "direction")]
    seeds = samples["seed"].to_numpy()
    stacked = {name: matrix(samples, column) for name, column in value_columns(samples).items()}
    values = {}
    for key in dict.fromkeys(zip(*(column.tolist() for column in columns), strict=True)):
        rows = np.logical_and.reduce([column == part for column, part in zip(columns, key, strict=True)])
        values[key] = {name: over_seeds(every[rows], seeds[rows]) for name, every in stacked.items()}
    return values


def area_rows(curves: Curves, about: Mapping[str, str]) -> list[Row]:
    """Return one row per explainer, modality and direction, with the mean curves, their areas and 95 % intervals.

    The area of a value is in ``{value}_auc``. ``auc`` is the area of the first value; the area of the accuracy is
    always ``auc``.

    Args:
        curves: The curves.
        about: Columns that describe the run, added to every row.
    """
    rows: list[Row] = []
    for explainer, modality, direction in curves.keys:
        row: Row = {"explainer": explainer, **about, "modality": modality}
        row |= {"direction": direction, "samples": curves.samples, "steps": list(curves.steps)}
        rows.append(row | {"control": explainer in curves.controls})
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
    """Return the gaps between the two directions, one row per explainer, modality and value.

    A row also compares the gap with that of every other explainer that is a control in the modality (``controls``), and
    says whether it is larger than all of them (``above_controls``; None if there is no other control). There are no
    rows if only one direction was tested.
    """
    found = [
        (*pair, name, _sample_gaps(curves, *pair, name))
        for pair in _pairs_with_gap(curves)
        for name in curves.value_names
    ]
    if not found:
        return []
    intervals = _interval(np.stack([gaps for *_, gaps in found], axis=2), curves.seed)
    gap_of = {(e, m, name): gaps for e, m, name, gaps in found}
    controls = [[c for c in curves.explainers(m) if c in curves.controls and c != e] for e, m, *_ in found]
    differences = [
        gaps - gap_of[c, m, name] for (_, m, name, gaps), own in zip(found, controls, strict=True) for c in own
    ]
    compared = iter(_compared(differences, [len(own) for own in controls], curves.seed))
    rows: list[Row] = []
    for (e, m, name, gaps), interval, own in zip(found, intervals.T, controls, strict=True):
        row: Row = {"explainer": e, "modality": m, "measure": name, "gap": float(gaps.mean())}
        against = [{"control": c, **next(compared)} for c in own]
        row |= {"gap_ci95": interval.tolist(), "control": e in curves.controls, "controls": against}
        rows.append(row | {"above_controls": all(map(_is_above, against)) if against else None})
    return rows


def _is_above(comparison: Row) -> bool:
    """Return whether a difference is above 0: its 95 % interval, and its test with Holm's correction below 0.05."""
    return bool(comparison["ci95"][0] > 0 and comparison["p_holm"] < SIGNIFICANT)


def comparison_rows(curves: Curves) -> list[Row]:
    """Compare every pair of explainers on the same samples: the difference of their areas, in percent, with a test.

    The test is a permutation test (``perturbation.statistics.sign_flip_p_value``). ``p_holm`` is corrected over all
    pairs with the same modality, direction and measure. The direction ``gap`` is the negative area minus the positive
    area. With several runs, ``difference`` is the mean over the runs, ``runs`` contains the difference of each run, and
    the test uses each sample's mean over the runs.
    """
    directions = [*curves.directions(), "gap"] if _pairs_with_gap(curves) else curves.directions()
    about: list[Row] = []
    differences: list[Array] = []
    families: list[int] = []
    for test in itertools.product(curves.modalities(), curves.value_names, directions):
        found = {explainer: _sample_areas(curves, explainer, *test) for explainer in curves.explainers(test[0])}
        pairs = list(itertools.combinations(found, 2))
        about += [
            dict(zip(("modality", "measure", "direction", "first", "second"), (*test, *pair), strict=True))
            for pair in pairs
        ]
        differences += [found[first] - found[second] for first, second in pairs]
        families.append(len(pairs))
    compared = _compared(differences, families, curves.seed)
    return [{**pair, **row} for pair, row in zip(about, compared, strict=True)]


def _compared(paired: Sequence[Array], families: Sequence[int], seed: int) -> list[Row]:
    """Return mean, interval and test of C paired differences.

    Args:
        paired: C differences, [runs, samples] each.
        families: Numbers of neighbouring differences that Holm's correction takes together; their sum is C.
        seed: Seed of the bootstrap and of the permutation tests.
    """
    if not paired:
        return []
    differences = np.stack(paired, axis=2)
    intervals = _interval(differences, seed)
    p_values = sign_flip_p_value(differences.mean(axis=0), seed=seed)
    corrected = np.concatenate([holm(family) for family in np.split(p_values, np.cumsum(families)[:-1])])
    return [
        {
            "difference": float(differences[:, :, k].mean()),
            "ci95": intervals[:, k].tolist(),
            "runs": differences[:, :, k].mean(axis=1).tolist(),
            "p": float(p_values[k]),
            "p_holm": float(corrected[k]),
        }
        for k in range(differences.shape[2])
    ]


def _sample_areas(curves: Curves, explainer: str, modality: str, name: str, direction: str) -> Array:
    """Return the area of every sample, or its gap, in percent, [runs, samples]."""
    if direction == "gap":
        return _sample_gaps(curves, explainer, modality, name)
    return areas(curves.values[explainer, modality, direction][name], curves.steps)


def _pairs_with_gap(curves: Curves) -> list[tuple[str, str]]:
    """Return all pairs of explainer and modality if both directions were tested, else an empty list."""
    if len(curves.directions()) < 2:
        return []
    return list(dict.fromkeys((explainer, modality) for explainer, modality, _ in curves.keys))


def _sample_gaps(curves: Curves, explainer: str, modality: str, name: str) -> Array:
    positive, negative = (curves.values[explainer, modality, d][name] for d in ("positive", "negative"))
    return direction_gaps(positive, negative, curves.steps)


def _interval(values: Array, seed: int) -> Array:
    """Return the 95 % interval of the mean over runs and samples: [runs, samples, ...] → [2, ...]."""
    if len(values) == 1:
        return bootstrap_interval(values[0], seed=seed)
    return seed_interval(values, shared_samples=True, seed=seed)
