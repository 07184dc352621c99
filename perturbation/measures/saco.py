"""SaCo (Wu et al., CVPR 2024, arXiv:2404.01415): do groups of tokens matter in the order and ratio of their scores?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipmapper.errors import UserError
from perturbation.arrays import Array, Mask
from perturbation.measures.base import FULL, ExplainedBatch, Measure, Name, Rows, about_row
from perturbation.removal.order import removal_order
from perturbation.removal.reader import Read, SubsetOutputs, Subsets
from perturbation.report.rows import summary_rows

SACO = "saco"  # the table, its column and the key of the report


class SaCo(Measure):
    """Reads every sample without each group of its tokens, grouped by score.

    Args:
        groups: K, 2 or more. A sample's removable tokens, highest score first, are cut into K groups whose sizes differ
            by at most one, the larger ones first; where there are fewer tokens than K, every token is a group.
        seed: of the resampling.
    """

    def __init__(self, groups: int = 10, seed: int = 0):
        if groups < 2:
            raise UserError(f"measure.saco.groups={groups} must be 2 or more: groups are compared with one another")
        self.groups, self.seed = groups, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        requests: dict[Name, Subsets] = {FULL: Subsets()}
        for modality, tokens in batch.tokens.items():
            for scored_by, scores in tokens.scores.items():
                group = groups_of(scores, tokens.removable, self.groups)
                kept = group[:, None, :] != np.arange(self.groups)[:, None]
                requests[modality, scored_by] = Subsets.only(modality, kept)
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        full = outputs[FULL].responses
        rows = []
        for modality, tokens in batch.tokens.items():
            for scored_by, scores in tokens.scores.items():
                effects = full - outputs[modality, scored_by].responses
                values = saco(scores, groups_of(scores, tokens.removable, self.groups), effects)
                rows.append(Rows(SACO, about_row(modality, scored_by), {SACO: values}))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """``saco``: the mean, one row for every explainer and modality."""
        return {SACO: [{**row, "groups": self.groups} for row in summary_rows(tables[SACO], (SACO,), self.seed)]}


def groups_of(scores: Array, removable: Mask, groups: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Each token's group, int [B, n], 0 that of the highest scores; −1 where a token is not removable."""
    found = np.full(scores.shape, -1)
    for row, order, count in zip(
        found, removal_order(scores, removable, "positive"), removable.sum(axis=1), strict=True
    ):
        for number, places in enumerate(np.array_split(order[:count], groups)):
            row[places] = number
    return found


def saco(scores: Array, group: np.ndarray[Any, np.dtype[np.intp]], effects: Array) -> Array:
    """F, from −1 to 1, of every sample, [B].

    F = Σ_{i<j} σ_ij · (s_i − s_j) / Σ_{i<j} |s_i − s_j| over its groups, highest scores first. σ_ij is 1 where removing
    group i costs at least as much as removing group j, else −1. s_i is the mean score of group i: with groups of one
    size F is that of the paper, which sums the scores, and groups of several sizes stay comparable. Scores may have
    either sign and any scale: F reads their differences alone. Where all scores are equal F is 0, since they rank
    nothing; the paper's quotient is 0/0 there. NaN where a sample has no two groups.

    Args:
        scores: [B, n].
        group: int [B, n], as ``groups_of``.
        effects: [B, K], what removing each group takes from the response; not read of groups without tokens.
    """
    found = np.full(len(scores), np.nan)
    for b, (own, member, effect) in enumerate(zip(scores, group, effects, strict=True)):
        count = int(member.max(initial=-1)) + 1
        if count < 2:
            continue
        found[b] = 0.0
        if np.ptp(own[member >= 0]) > 0:
            mean = np.array([own[member == number].mean() for number in range(count)])
            first, second = np.triu_indices(count, 1)
            differences = mean[first] - mean[second]
            signs = np.where(effect[first] >= effect[second], 1.0, -1.0)
            found[b] = (signs * differences).sum() / np.abs(differences).sum()
    return found
