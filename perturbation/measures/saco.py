"""SaCo (Wu et al., CVPR 2024, arXiv:2404.01415; docs/method.md, Measures).

SaCo checks whether groups of tokens with higher scores have larger effects, weighted by the differences of the scores.
"""

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

SACO = "saco"  # name of the table, of its column and of the entry in the report


class SaCo(Measure):
    """The salience-guided faithfulness coefficient of every explainer.

    Args:
        groups: Number K of groups, at least 2. A sample's removable tokens, sorted from the highest score to the
            lowest, are divided into K groups whose sizes differ by at most one, the larger groups first. With fewer
            than K tokens, every token is a group.
        seed: Seed of the bootstrap.
    """

    def __init__(self, groups: int = 10, seed: int = 0):
        if groups < 2:
            raise UserError(f"measure.saco.groups={groups} must be 2 or more, because groups are compared in pairs")
        if groups > 10**4:
            raise UserError(f"measure.saco.groups={groups} must be at most 10,000, more than any input has tokens")
        self.groups, self.seed = groups, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Ask for the full samples, and for the samples without each group of tokens."""
        requests: dict[Name, Subsets] = {FULL: Subsets()}
        for modality, tokens in batch.tokens.items():
            ties = batch.ties(modality)
            for scored_by, scores in tokens.scores.items():
                group = groups_of(scores, tokens.removable, self.groups, ties)
                kept = group[:, None, :] != np.arange(self.groups)[:, None]
                requests[modality, scored_by] = Subsets.only(modality, kept)
        return requests

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Record the coefficient of every sample."""
        full = outputs[FULL].responses
        rows = []
        for modality, tokens in batch.tokens.items():
            ties = batch.ties(modality)
            for scored_by, scores in tokens.scores.items():
                effects = full - outputs[modality, scored_by].responses
                values = saco(scores, groups_of(scores, tokens.removable, self.groups, ties), effects)
                rows.append(Rows(SACO, about_row(modality, scored_by), {SACO: values}))
        return rows

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return ``saco``: the mean coefficient, one row per explainer and modality."""
        return {SACO: [{**row, "groups": self.groups} for row in summary_rows(tables[SACO], (SACO,), self.seed)]}


def groups_of(scores: Array, removable: Mask, groups: int, ties: Array) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the group of each token, int [B, n].

    Group 0 has the highest scores; tokens that are not removable get −1. Equal scores are ordered by ``ties``, [B, n].
    """
    found = np.full(scores.shape, -1)
    for row, order, count in zip(
        found, removal_order(scores, removable, "positive", ties), removable.sum(axis=1), strict=True
    ):
        for number, places in enumerate(np.array_split(order[:count], groups)):
            row[places] = number
    return found


def saco(scores: Array, group: np.ndarray[Any, np.dtype[np.intp]], effects: Array) -> Array:
    """Return the coefficient F of every sample, from −1 to 1, [B].

    F = Σ_{i<j} σ_ij · (m_i − m_j) / Σ_{i<j} |m_i − m_j| over the groups of a sample, highest scores first. σ_ij is 1 if
    removing group i has at least the effect of removing group j, else −1. m_i is the mean score of group i. The paper
    uses the sum of the scores, which gives the same F for groups of equal size; with the mean, groups of different
    sizes stay comparable. Scores may have any sign and scale, because only their differences count. If all scores are
    equal, F is 0 (the paper's quotient is 0/0), because they rank nothing. F is NaN if a sample has fewer than two
    groups.

    Args:
        scores: [B, n].
        group: int [B, n], from ``groups_of``.
        effects: [B, K], how much removing each group lowers the response; ignored for groups without tokens.
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
