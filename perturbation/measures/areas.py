"""Curves over the removal steps, and the areas under them (docs/method.md, Perturbation tests).

Tokens are removed step by step, highest scores first ("positive") or lowest first ("negative"), and the model's output
is recorded at every step. Every run has this measure, because a batch counts as finished once its records are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from clipmapper.files import finite, write_atomic, write_json
from explain.figures.saving import save
from perturbation.measures.base import SAMPLES, ExplainedBatch, Measure, Name, Rows, about_row
from perturbation.removal.order import Direction, kept_masks
from perturbation.removal.reader import Read, SubsetOutputs, Subsets
from perturbation.removal.steps import parse_steps
from perturbation.report.curves import Curves, area_rows, comparison_rows, curves_of, gap_rows
from perturbation.report.figures import curve_figure
from perturbation.report.tables import area_table


class Areas(Measure):
    """The curves of every explainer, modality and direction.

    Args:
        steps: Removed fractions, in a form that ``parse_steps`` accepts.
        direction: ``positive`` removes the highest scores first, ``negative`` the lowest.
        about: Columns that every row of the report has in addition to the explainer: task and mapper.
        seed: Seed of the bootstrap and of the permutation tests.
    """

    def __init__(
        self, steps: str | Sequence[float], direction: Sequence[Direction], about: Mapping[str, str], seed: int = 0
    ):
        self.steps = parse_steps(steps)
        self.direction, self.about, self.seed = direction, about, seed

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Ask for the tokens kept at every step of every explainer's order."""
        return {
            (modality, scored_by, direction): Subsets.only(
                modality, kept_masks(scores, tokens.removable, self.steps, direction, ties)
            )
            for modality, tokens in batch.tokens.items()
            for ties in [batch.ties(modality)]
            for scored_by, scores in tokens.scores.items()
            for direction in self.direction
        }

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Record the sample's partner, and the model's answer or caption and all its values at every step."""
        return [
            Rows(
                SAMPLES,
                about_row(modality, scored_by, direction=direction, control=scored_by.control),
                {"partner_id": batch.partner_ids(scored_by), batch.said: found.said, **found.values},
            )
            for (modality, scored_by, direction), found in outputs.items()
        ]

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return ``rows``, one per explainer, modality and direction, and ``gaps``; write tables and figures."""
        return self.report_runs([tables[SAMPLES]], run)

    def report_runs(self, runs: Sequence[pa.Table], run: Path) -> dict[str, Any]:
        """Write one report of several runs on the same samples, of models trained with different seeds."""
        curves = curves_of(runs, self.steps, self.seed)
        content: dict[str, Any] = finite({"rows": area_rows(curves, self.about), "gaps": gap_rows(curves)})
        self._write(curves, content, run)
        return content

    def _write(self, curves: Curves, content: Mapping[str, Any], run: Path) -> None:
        write_json(run / "comparisons.json", finite(comparison_rows(curves)))
        for name in curves.value_names:
            for suffix, text in area_table(content["rows"], content["gaps"], name).items():
                write_atomic(run / f"areas_{name}.{suffix}", text.encode())
            save(curve_figure(content["rows"], name), run / f"curves_{name}")
