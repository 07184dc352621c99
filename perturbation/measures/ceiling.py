"""How small and how large an area any order could reach, so that an explainer's can be read as a share of it.

Text: every subset of the sub-words is read, and each step is bounded by the best and the worst subset of its size. The
subsets of neighbouring steps need not contain one another, so no order need reach the bound. The mean over all subsets
of a size is what random orders give on average, exactly. Images have too many subsets: ``perturbation.removal.greedy``
searches an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipmapper.errors import UserError
from clipmapper.files import write_atomic
from perturbation.arrays import Array, Mask
from perturbation.measures.base import SAMPLES, ExplainedBatch, Measure, Name, Rows, TokenScores
from perturbation.removal.greedy import greedy_masks
from perturbation.removal.reader import Modality, Read, SubsetOutputs, Subsets
from perturbation.removal.steps import parse_steps, removed_count
from perturbation.report.curves import area_under_mean, curves_of_run, value_columns
from perturbation.report.rows import Row, finite, matrix
from perturbation.report.tables import ARROWS, markdown_table

CEILING = "ceiling"  # the table
ENDS = ("lowest", "mean", "highest")
_NO_ROOM = 1e-9  # percent: a difference of rounding


class Ceiling(Measure):
    """Looks for the best and the worst removals of the first samples of a run.

    Args:
        samples: how many are searched; 0 leaves the measure out.
        words: text: only samples of at most so many sub-words, 2^words readings each.
        steps: the removed fractions, as ``parse_steps`` takes them.
        seed: of the random orders.
    """

    def __init__(self, samples: int, words: int, steps: str | Sequence[float], seed: int = 0):
        if samples < 0:
            raise UserError(f"ceiling.samples={samples} must be 0 or more")
        if not 1 <= words <= 12:
            raise UserError(f"ceiling.words={words} must be 1 to 12: n sub-words take 2^n readings")
        self.samples, self.words, self.steps, self.seed = samples, words, parse_steps(steps), seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        requests: dict[Name, Subsets] = {}
        for modality, tokens in batch.tokens.items():
            if places := self._searched(batch, modality, tokens.removable):
                masks = self._masks(batch, modality, tokens.removable, places, read)
                requests |= {(modality, name): Subsets.only(modality, kept) for name, kept in masks.items()}
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        rows = []
        for modality, tokens in batch.tokens.items():
            found = {name: each for (of, name), each in outputs.items() if of == modality}
            if found:
                places = self._searched(batch, modality, tokens.removable)
                rows.append(Rows(CEILING, {"modality": modality}, self._columns(found, tokens, places), places))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """``ceiling``, one row for every explainer, modality, direction and value, and their table."""
        if CEILING not in tables:
            return {}
        rows = finite(ceiling_rows(tables[SAMPLES], tables[CEILING], self.steps))
        write_atomic(run / "ceiling.md", ceiling_table(rows).encode())
        return {"ceiling": rows}

    def _searched(self, batch: ExplainedBatch, modality: Modality, removable: Mask) -> list[int]:
        """Whose ceiling is looked for, of the run's first ``samples``: all images, and texts of few sub-words."""
        count = max(0, self.samples - batch.start)
        if modality == "image":
            return list(range(min(count, len(batch.ids))))
        return few_enough(removable[:count], self.words)

    def _masks(
        self, batch: ExplainedBatch, modality: Modality, removable: Mask, places: Sequence[int], read: Read
    ) -> dict[str, Mask]:
        if modality == "text":
            return {"all": all_subsets(removable, places)}
        draws = [f"{self.seed}/{number}" for number in batch.ids]
        searched = np.isin(np.arange(len(removable)), places)[:, None]
        return greedy_masks(
            lambda kept: read(Subsets.only(modality, kept)).responses, removable & searched, self.steps, draws
        )

    def _columns(
        self, found: Mapping[str, SubsetOutputs], tokens: TokenScores, places: Sequence[int]
    ) -> dict[str, Array]:
        """``{end}_{value}``: the lowest, mean and highest curves of the samples at ``places``, [places, S] each."""
        columns: dict[str, Array] = {}
        for value in next(iter(found.values())).values:
            curves = [
                self._curves({name: each.values[value][b] for name, each in found.items()}, tokens.removable[b])
                for b in places
            ]
            columns |= {f"{end}_{value}": np.stack([curve[end] for curve in curves]) for end in ENDS}
        return columns

    def _curves(self, values: Mapping[str, Array], removable: Mask) -> dict[str, Array]:
        """One sample's curves, [S] each."""
        if "all" in values:
            return bounds(values["all"][: 2 ** int(removable.sum())], self.steps)
        random = values["random"].reshape(-1, len(self.steps)).mean(axis=0)
        return {"lowest": values["lowest"], "mean": random, "highest": values["highest"]}


def few_enough(removable: Mask, words: int) -> list[int]:
    """The samples with 1 to ``words`` removable tokens: removable [B, n] → their places."""
    counts = removable.sum(axis=1)
    return np.flatnonzero((counts >= 1) & (counts <= words)).tolist()


def all_subsets(removable: Mask, places: Sequence[int]) -> Mask:
    """Every subset of the removable tokens of some samples, all other tokens kept: [B, n] → kept masks [B, M, n].

    A sample with k removable tokens has its 2^k subsets first, subset i without the tokens whose bits i has; what
    follows, and all masks of the samples that are not asked for, keep everything.
    """
    tokens = [np.flatnonzero(removable[place]) for place in places]
    kept = np.ones((len(removable), 2 ** max(map(len, tokens)), removable.shape[1]), dtype=np.bool_)
    for place, found in zip(places, tokens, strict=True):
        numbers = np.arange(2 ** len(found))[:, None]
        kept[place, : len(numbers), found] = (numbers >> np.arange(len(found)) & 1 == 0).T
    return kept


def bounds(values: Array, steps: Sequence[float]) -> dict[str, Array]:
    """Lowest, mean and highest value over the subsets of every step's size: values [2^k] → [S] each.

    Args:
        values: One number for each subset, in the order of ``all_subsets``.
        steps: Removed fractions.
    """
    tokens = len(values).bit_length() - 1
    removed = np.array([number.bit_count() for number in range(len(values))])
    groups = [values[removed == removed_count(tokens, step)] for step in steps]
    return {
        "lowest": np.array([group.min() for group in groups]),
        "mean": np.array([group.mean() for group in groups]),
        "highest": np.array([group.max() for group in groups]),
    }


def ceiling_rows(samples: pa.Table, ceiling: pa.Table, steps: Sequence[float]) -> list[Row]:
    """Areas on the searched samples, beside that of the best removals and the mean area of random orders.

    ``share`` is (area − random) / (best − random): 0 is a random order, and 1 for text the best subset at every step,
    for images what the search found, which an explainer may pass. It is NaN where the best is no better than random.
    """
    rows = []
    for modality in dict.fromkeys(ceiling["modality"].to_pylist()):
        own = ceiling.filter(pa.compute.equal(ceiling["modality"], modality))
        sample = own.column_names[0]
        searched = pa.compute.is_in(samples[sample], own[sample])
        about = samples.filter(pa.compute.and_(searched, pa.compute.equal(samples["modality"], modality)))
        for (explainer, _, direction), curves in curves_of_run(about).items():
            for name, column in value_columns(samples).items():
                best = matrix(own, f"{'lowest' if direction == 'positive' else 'highest'}_{column}")
                found = {"auc": curves[name], "best_auc": best, "random_auc": matrix(own, f"mean_{column}")}
                area = {key: area_under_mean(values, steps) for key, values in found.items()}
                row: Row = {"explainer": explainer, "modality": modality, "direction": direction, "measure": name}
                rows.append({**row, "samples": own.num_rows, **area, "share": _share(direction, **area)})
    return rows


def ceiling_table(rows: Sequence[Row]) -> str:
    """Markdown: every explainer's area between that of random orders and the best, and its share of the way, percent.

    Args:
        rows: ``ceiling`` as ``perturbation.json`` holds it.
    """
    heads = ["measure", "modality", "direction", "explainer", "samples", "random", "area", "best", "share"]
    cells = [
        [
            *(row["measure"], row["modality"], f"{row['direction']} {ARROWS[row['direction']]}", row["explainer"]),
            *(str(row["samples"]), *(f"{row[key]:.1f}" for key in ("random_auc", "auc", "best_auc"))),
            "–" if row["share"] is None else f"{100 * row['share']:.1f}",
        ]
        for row in sorted(rows, key=lambda row: (row["measure"], row["modality"], row["direction"]))  # stable
    ]
    best = "Best: for text, the best subset at every step; for images, an order found by greedy search by probability."
    return f"{markdown_table(heads, cells, names=4)}\n{best}\n"


def _share(direction: str, auc: float, best_auc: float, random_auc: float) -> float:
    better = -1 if direction == "positive" else 1
    room = better * (best_auc - random_auc)
    return better * (auc - random_auc) / room if room > _NO_ROOM else float("nan")
