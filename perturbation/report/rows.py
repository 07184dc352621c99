"""Records of single samples to what is reported: areas, gaps, ERASER, faithfulness, ceilings and paired comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perturbation.measures.areas import area_under_mean, areas, direction_gaps
from perturbation.measures.eraser import comprehensiveness, sufficiency
from perturbation.measures.faithfulness import summarize
from perturbation.removal.masks import Array
from perturbation.statistics import bootstrap_interval, holm, seed_interval, sign_flip_p_value

# By task, the name in reports → the column of the samples; the first is what is looked at first.
MEASURES = {
    "vqa": {"accuracy": "correct", "probability": "probability"},
    "caption": {"clip_score": "clip_score", "ref_clip_score": "ref_clip_score"},
}
_NO_ROOM = 1e-9  # percent: a difference of rounding
Row = dict[str, Any]


@dataclass(frozen=True)
class Curves:
    """Samples' curves over the steps, [runs, samples, S], by measure; random orders are averaged over their seeds.

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
        return int(next(iter(self.values.values()))[self.measures[0]].shape[1])

    @property
    def measures(self) -> list[str]:
        """Those of the task, in the order of ``MEASURES``."""
        return list(next(iter(self.values.values())))

    def explainers(self) -> list[str]:
        return list(dict.fromkeys(key[0] for key in self.values))

    def modalities(self) -> list[str]:
        return list(dict.fromkeys(key[1] for key in self.values))

    def directions(self) -> list[str]:
        return list(dict.fromkeys(key[2] for key in self.values))


def curves_of(runs: Sequence[pa.Table], steps: Sequence[float], seed: int, task: str) -> Curves:
    """The curves of the ``samples.parquet`` of one run, or of several on the same samples."""
    each = [_curves_of(samples, MEASURES[task]) for samples in runs]
    values = {key: {name: np.stack([run[key][name] for run in each]) for name in MEASURES[task]} for key in each[0]}
    return Curves(values, steps, seed)


def _curves_of(samples: pa.Table, columns_of: Mapping[str, str]) -> dict[tuple[str, str, str], dict[str, Array]]:
    """One run's, [samples, S]."""
    columns = [np.asarray(samples[name].to_pylist()) for name in ("explainer", "modality", "direction")]
    seeds = samples["seed"].to_numpy()
    stacked = {name: _matrix(samples, column) for name, column in columns_of.items()}
    values = {}
    for key in dict.fromkeys(zip(*(column.tolist() for column in columns), strict=True)):
        rows = np.logical_and.reduce([column == part for column, part in zip(columns, key, strict=True)])
        values[key] = {name: _over_seeds(matrix[rows], seeds[rows]) for name, matrix in stacked.items()}
    return values


def area_rows(curves: Curves, task: str, mapper: str) -> list[Row]:
    """One row for every explainer, modality and direction, with the mean curves, their areas and 95 % intervals.

    A measure's area is ``{measure}_auc``, and ``auc`` is the first measure's; that of the accuracy has only this name.
    """
    rows: list[Row] = []
    for explainer, modality, direction in curves.keys:
        row: Row = {"explainer": explainer, "task": task, "mapper": mapper, "modality": modality}
        rows.append(row | {"direction": direction, "samples": curves.samples, "steps": list(curves.steps)})
    for name in curves.measures:
        prefix = "" if name == "accuracy" else f"{name}_"
        values = np.stack([measures[name] for measures in curves.values.values()], axis=2)
        bands = _interval(values, curves.seed)
        intervals = _interval(areas(values, curves.steps), curves.seed)
        for k, row in enumerate(rows):
            row[name] = values[:, :, k].mean(axis=(0, 1)).tolist()
            row[f"{name}_ci95"] = bands[:, k].tolist()
            row[f"{prefix}auc"] = area_under_mean(values[:, :, k].mean(axis=0), curves.steps)
            row[f"{prefix}auc_ci95"] = intervals[:, k].tolist()
            if name == curves.measures[0]:
                row |= {"auc": row[f"{prefix}auc"], "auc_ci95": row[f"{prefix}auc_ci95"]}
    return rows


def gap_rows(curves: Curves) -> list[Row]:
    """The area of the negative curve less that of the positive one; none where one direction only was tested."""
    found = [(*pair, name, _gaps(curves, *pair, name)) for pair in _pairs_of(curves) for name in curves.measures]
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
    tests = list(itertools.product(curves.modalities(), curves.measures, directions))
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


def eraser_rows(measured: pa.Table, shares: Sequence[float], seed: int) -> list[Row]:
    """Mean comprehensiveness and sufficiency at every share of the tokens, and over the shares."""
    kinds = {"comprehensiveness": ("without_top", comprehensiveness), "sufficiency": ("only_top", sufficiency)}
    rows, samples = [], []
    for explainer, modality, table in _groups(measured):
        row: Row = {"explainer": explainer, "modality": modality, "shares": list(shares)}
        for name, (column, drop) in kinds.items():
            each = drop(table["full"].to_numpy(), _matrix(table, column))
            values = _over_seeds(each, table["seed"].to_numpy())
            row |= {name: values.mean(axis=0).tolist(), f"mean_{name}": float(values.mean())}
            samples.append(values.mean(axis=1))
        rows.append(row)
    intervals = iter(_intervals(samples, seed))
    return [row | {f"mean_{name}_ci95": next(intervals) for name in kinds} for row in rows]


def faithfulness_rows(measured: pa.Table, seed: int) -> list[Row]:
    """Violation rate and mean correlations, each over the samples where it is defined."""
    names = ("violation", "pearson", "spearman")
    groups = _groups(measured)
    values = [
        _over_seeds(table[name].to_numpy()[:, None], table["seed"].to_numpy())[:, 0]
        for *_, table in groups
        for name in names
    ]
    intervals = _intervals(values, seed)
    found = iter({**summarize(each)._asdict(), "ci95": ci} for each, ci in zip(values, intervals, strict=True))
    return [
        {"explainer": explainer, "modality": modality} | {name: next(found) for name in names}
        for explainer, modality, _ in groups
    ]


def ceiling_rows(samples: pa.Table, ceiling: pa.Table, steps: Sequence[float]) -> list[Row]:
    """Areas on the searched samples, beside that of the best removals and the mean area of random orders.

    ``share`` is (area − random) / (best − random): 0 is a random order, and 1 for text the best subset at every step
    (``perturbation.measures.ceiling``), for images what the search by probability found
    (``perturbation.measures.greedy``), which an explainer may pass. It is NaN where the best is no better than random.
    """
    rows = []
    for modality in dict.fromkeys(ceiling["modality"].to_pylist()):
        own = ceiling.filter(pa.compute.equal(ceiling["modality"], modality))
        searched = pa.compute.is_in(samples["question_id"], own["question_id"])
        about = samples.filter(pa.compute.and_(searched, pa.compute.equal(samples["modality"], modality)))
        for (explainer, _, direction), measures in _curves_of(about, MEASURES["vqa"]).items():
            for name, column in MEASURES["vqa"].items():
                best = _matrix(own, f"{'lowest' if direction == 'positive' else 'highest'}_{column}")
                found = {"auc": measures[name], "best_auc": best, "random_auc": _matrix(own, f"mean_{column}")}
                area = {key: area_under_mean(values, steps) for key, values in found.items()}
                row: Row = {"explainer": explainer, "modality": modality, "direction": direction, "measure": name}
                rows.append({**row, "samples": own.num_rows, **area, "share": _share(direction, **area)})
    return rows


def _share(direction: str, auc: float, best_auc: float, random_auc: float) -> float:
    better = -1 if direction == "positive" else 1
    room = better * (best_auc - random_auc)
    return better * (auc - random_auc) / room if room > _NO_ROOM else float("nan")


def _areas(curves: Curves, explainer: str, modality: str, measure: str, direction: str) -> Array:
    """Every sample's area, or gap, in percent, [runs, samples]."""
    if direction == "gap":
        return _gaps(curves, explainer, modality, measure)
    return areas(curves.values[explainer, modality, direction][measure], curves.steps)


def _pairs_of(curves: Curves) -> list[tuple[str, str]]:
    """Explainer and modality where both directions were tested."""
    if len(curves.directions()) < 2:
        return []
    return list(dict.fromkeys((explainer, modality) for explainer, modality, _ in curves.keys))


def _gaps(curves: Curves, explainer: str, modality: str, measure: str) -> Array:
    positive, negative = (curves.values[explainer, modality, d][measure] for d in ("positive", "negative"))
    return direction_gaps(positive, negative, curves.steps)


def _interval(values: Array, seed: int) -> Array:
    """95 % interval of the mean over runs and samples: [runs, samples, ...] → [2, ...]."""
    if len(values) == 1:
        return bootstrap_interval(values[0], seed=seed)
    return seed_interval(values, shared_samples=True, seed=seed)


def _groups(measured: pa.Table) -> list[tuple[str, str, pa.Table]]:
    explainers, modalities = measured["explainer"].to_pylist(), measured["modality"].to_pylist()
    found = []
    for explainer, modality in dict.fromkeys(zip(explainers, modalities, strict=True)):
        same = [e == explainer and m == modality for e, m in zip(explainers, modalities, strict=True)]
        found.append((explainer, modality, measured.filter(pa.array(same))))
    return found


def _matrix(table: pa.Table, column: str) -> Array:
    """A column of lists of one length, [rows, length]."""
    values = table[column].combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float64).reshape(table.num_rows, -1)


def _over_seeds(values: Array, seeds: Array) -> Array:
    """The mean over seeds: [rows, …] with the samples in one order under every seed → [samples, …]."""
    return np.mean([values[seeds == seed] for seed in np.unique(seeds)], axis=0)


def _intervals(columns: Sequence[Array], seed: int) -> list[list[float]]:
    """Each column's interval over the samples where it is defined; columns defined on the same samples share theirs."""
    defined = [~np.isnan(column) for column in columns]
    found: dict[int, list[float]] = {}
    for mask in {each.tobytes(): each for each in defined}.values():
        places = [k for k, each in enumerate(defined) if (each == mask).all()]
        values = np.stack([columns[k][mask] for k in places], axis=1)
        interval = bootstrap_interval(values, seed=seed) if len(values) else np.full((2, len(places)), np.nan)
        found |= zip(places, interval.T.tolist(), strict=True)
    return [found[k] for k in range(len(columns))]
