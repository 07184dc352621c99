"""The smallest and the largest area that any order of removal could reach (docs/method.md, Measures).

They show how much of the possible improvement over random orders an explainer reaches.

Text: the model reads every subset of the sub-words, and the best and the worst subset of each size bound each step. The
bound may be out of reach for every order, because the best subsets of neighbouring steps need not contain one another.
The mean over all subsets of a size is exactly the average of random orders.

Images have too many subsets, so ``perturbation.removal.greedy`` searches for an order instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipmapper.errors import UserError
from clipmapper.files import finite, write_atomic
from perturbation.arrays import Array, Mask
from perturbation.measures.base import SAMPLES, ExplainedBatch, Measure, Name, Rows, TokenScores
from perturbation.removal.greedy import greedy_masks
from perturbation.removal.reader import Modality, Read, SubsetOutputs, Subsets
from perturbation.removal.steps import parse_steps, removed_count
from perturbation.report.curves import area_under_mean, curves_of_run, value_columns
from perturbation.report.rows import Row, matrix
from perturbation.report.tables import ARROWS, markdown_table

CEILING = "ceiling"  # name of the table
ENDS = ("lowest", "mean", "highest")
_ROUNDING = 1e-9  # a difference of areas in percent up to this is rounding


class Ceiling(Measure):
    """A search for the best and the worst removals of the first samples of a run.

    Args:
        samples: Number of samples to search; 0 turns the measure off.
        words: Maximum number of sub-words of a text that is searched; n sub-words take 2^n forward passes.
        steps: Removed fractions, in a form that ``parse_steps`` accepts.
        seed: Seed of the random orders.
    """

    def __init__(self, samples: int, words: int, steps: str | Sequence[float], seed: int = 0):
        if samples < 0:
            raise UserError(f"ceiling.samples={samples} must be 0 or more")
        if not 1 <= words <= 12:
            raise UserError(f"ceiling.words={words} must be 1 to 12, because n sub-words take 2^n forward passes")
        self.samples, self.words, self.steps, self.seed = samples, words, parse_steps(steps), seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Ask for every subset of a short text, and for the steps of the searched and of random orders of an image."""
        requests: dict[Name, Subsets] = {}
        for modality, tokens in batch.tokens.items():
            if places := self._samples_to_search(batch, modality, tokens.removable):
                masks = self._masks(batch, modality, tokens.removable, places, read)
                requests |= {(modality, name): Subsets.only(modality, kept) for name, kept in masks.items()}
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Record the lowest, mean and highest curve of every searched sample."""
        rows = []
        for modality, tokens in batch.tokens.items():
            found = {name: each for (of, name), each in outputs.items() if of == modality}
            if found:
                places = self._samples_to_search(batch, modality, tokens.removable)
                rows.append(Rows(CEILING, {"modality": modality}, self._columns(found, tokens, places), places))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return ``ceiling``, one row per explainer, modality, direction and value; write ``ceiling.md``."""
        if CEILING not in tables:
            return {}
        rows = finite(ceiling_rows(tables[SAMPLES], tables[CEILING], self.steps))
        write_atomic(run / "ceiling.md", ceiling_table(rows).encode())
        return {"ceiling": rows}

    def _samples_to_search(self, batch: ExplainedBatch, modality: Modality, removable: Mask) -> list[int]:
        """Return the indices of the samples to search: all images, and texts of few sub-words, up to ``samples``."""
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
        """Return the lowest, mean and highest curve of the samples at ``places``, [places, S] by ``{end}_{value}``."""
        columns: dict[str, Array] = {}
        for value in next(iter(found.values())).values:
            curves = [
                self._curves({name: each.values[value][b] for name, each in found.items()}, tokens.removable[b])
                for b in places
            ]
            columns |= {f"{end}_{value}": np.stack([curve[end] for curve in curves]) for end in ENDS}
        return columns

    def _curves(self, values: Mapping[str, Array], removable: Mask) -> dict[str, Array]:
        """Return the lowest, mean and highest curve of one sample, [S] each."""
        if "all" in values:
            return bounds(values["all"][: 2 ** int(removable.sum())], self.steps)
        random = values["random"].reshape(-1, len(self.steps)).mean(axis=0)
        return {"lowest": values["lowest"], "mean": random, "highest": values["highest"]}


def few_enough(removable: Mask, words: int) -> list[int]:
    """Return the indices of the samples with 1 to ``words`` removable tokens; ``removable`` is [B, n]."""
    counts = removable.sum(axis=1)
    return np.flatnonzero((counts >= 1) & (counts <= words)).tolist()


def all_subsets(removable: Mask, places: Sequence[int]) -> Mask:
    """Return kept masks [B, M, n] of every subset of the removable tokens of some samples.

    Tokens that are not removable are always kept. The first 2^k masks of a sample with k removable tokens are its
    subsets: subset i removes token j if bit j of i is set. All later masks, and all masks of other samples, keep every
    token.

    Args:
        removable: bool [B, n].
        places: Indices of the samples whose subsets are listed.
    """
    tokens = [np.flatnonzero(removable[place]) for place in places]
    kept = np.ones((len(removable), 2 ** max(map(len, tokens)), removable.shape[1]), dtype=np.bool_)
    for place, found in zip(places, tokens, strict=True):
        numbers = np.arange(2 ** len(found))[:, None]
        kept[place, : len(numbers), found] = (numbers >> np.arange(len(found)) & 1 == 0).T
    return kept


def bounds(values: Array, steps: Sequence[float]) -> dict[str, Array]:
    """Return the lowest, mean and highest value over all subsets of each step's size, [S] each.

    Args:
        values: One number for each subset, [2^k], in the order of ``all_subsets``.
        steps: The S removed fractions.
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
    """Compare every explainer's area on the searched samples with the best area and the mean area of random orders.

    ``share`` is (area − random) / (best − random). 0 is as good as random orders. 1 is, for text, the best subset at
    every step, and for images the order that the search found, which an explainer may exceed. ``share`` is NaN if the
    best area is no better than the random one.

    Args:
        samples: The table of the measure ``areas``.
        ceiling: The table of this measure.
        steps: The removed fractions.
    """
    rows = []
    for modality in dict.fromkeys(ceiling["modality"].to_pylist()):
        bounds_of = ceiling.filter(pa.compute.equal(ceiling["modality"], modality))
        sample = bounds_of.column_names[0]
        searched = pa.compute.is_in(samples[sample], bounds_of[sample])
        about = samples.filter(pa.compute.and_(searched, pa.compute.equal(samples["modality"], modality)))
        for (explainer, _, direction), curves in curves_of_run(about).items():
            for name, column in value_columns(samples).items():
                best = matrix(bounds_of, f"{'lowest' if direction == 'positive' else 'highest'}_{column}")
                found = {"auc": curves[name], "best_auc": best, "random_auc": matrix(bounds_of, f"mean_{column}")}
                area = {key: area_under_mean(values, steps) for key, values in found.items()}
                row: Row = {"explainer": explainer, "modality": modality, "direction": direction, "measure": name}
                rows.append({**row, "samples": bounds_of.num_rows, **area, "share": _share(direction, **area)})
    return rows


def ceiling_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of the random, the explainer's and the best area, and of the share, in percent.

    Args:
        rows: The entry ``ceiling`` of ``perturbation.json``.
    """
    heads = ["measure", "modality", "direction", "explainer", "samples", "random", "area", "best", "share"]
    cells = [
        [
            *(row["measure"], row["modality"], f"{row['direction']} {ARROWS[row['direction']]}", row["explainer"]),
            *(str(row["samples"]), *(f"{row[key]:.1f}" for key in ("random_auc", "auc", "best_auc"))),
            "–" if row["share"] is None else f"{100 * row['share']:.1f}",
        ]
        for row in sorted(rows, key=lambda row: (row["measure"], row["modality"], row["direction"]))
    ]
    best = "Best: for text, the best subset at every step; for images, an order found by greedy search by probability."
    return f"{markdown_table(heads, cells, names=4)}\n{best}\n"


def _share(direction: str, auc: float, best_auc: float, random_auc: float) -> float:
    better = -1 if direction == "positive" else 1
    room = better * (best_auc - random_auc)
    return better * (auc - random_auc) / room if room > _ROUNDING else float("nan")
