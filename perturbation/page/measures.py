"""Tables of the other measures of a perturbation run: ERASER, faithfulness, SaCo and ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perturbation.page.grid import grid_table
from perturbation.page.numbers import NBSP, interval, number, plain
from perturbation.page.view import Cell, Table
from perturbation.report.rows import Row
from perturbation.report.tables import ARROWS

#: For each measure: its title, how it is read, and the heading of each of its columns with the key in its rows.
MEASURES = {
    "eraser": (
        "Comprehensiveness and sufficiency (ERASER)",
        "Fall of the response without the tokens with the highest scores (comprehensiveness ↑, larger is better), and "
        "with these tokens only (sufficiency ↓, smaller is better), from −1 to 1; means over several shares of tokens.",
        {"comprehensiveness ↑": "mean_comprehensiveness", "sufficiency ↓": "mean_sufficiency"},
    ),
    "faithfulness": (
        "Faithfulness: violations, and correlation with the effects of single tokens",
        "Violation ↓: share of the samples in which removing the strongest token moves the response against its score. "
        "Pearson ↑ and Spearman ↑: correlation of the scores with the effects of removing each token alone, means over "
        "the samples for which they are defined.",
        {"violation ↓": "violation", "Pearson ↑": "pearson", "Spearman ↑": "spearman"},
    ),
    "saco": (
        "SaCo",
        "SaCo ↑, from −1 to 1: whether groups of tokens with higher scores have larger effects, weighted by the "
        "differences of the scores.",
        {"SaCo ↑": "saco"},
    ),
}
CEILING = (
    "Share of the way from the area of random orders (0) to the best area that a search found (100), in percent ↑. The "
    "arrow in a heading is the direction in which the area itself is better. For images, an explainer can exceed the "
    "search."
)


def measure_tables(content: Mapping[str, Any], controls: frozenset[str]) -> list[Table]:
    """Return a table for each of these measures that the run has.

    Args:
        content: The content of ``perturbation.json``.
        controls: Names of the controls.
    """
    found = []
    for name, (title, meaning, columns) in MEASURES.items():
        cells = {
            (row["explainer"], row["modality"], head): _cell(row, key)
            for row in content.get(name, ())
            for head, key in columns.items()
        }
        recipe = (meaning, "In brackets: 95 % bootstrap intervals over the samples.")
        found += grid_table(title, recipe, cells, controls, folded=True)
    return [*found, *_ceiling(content.get("ceiling", ()), controls)]


def _cell(row: Row, key: str) -> Cell:
    """Return a mean with its interval; rows have a summary under the key, or the mean and ``_ci95``."""
    summary = row[key] if isinstance(row[key], dict) else {"mean": row[key], "ci95": row[f"{key}_ci95"]}
    return Cell(number(summary["mean"], 3), interval(summary["ci95"], 3))


def _ceiling(rows: Sequence[Row], controls: frozenset[str]) -> list[Table]:
    """Return how far each explainer goes from random orders to the best removals found."""
    cells = {}
    for row in rows:
        group, head = (
            f"{row['modality']}, {plain(row['measure'])}",
            f"{row['direction']}{NBSP}{ARROWS[row['direction']]}",
        )
        share = None if row["share"] is None else 100 * row["share"]
        cells[row["explainer"], group, head] = Cell(number(share))
    samples = " or ".join(str(count) for count in sorted({row["samples"] for row in rows}))
    recipe = (CEILING, f"Over {samples} samples, without intervals.")
    return grid_table("Ceiling", recipe, cells, controls, folded=True)
