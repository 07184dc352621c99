"""The main tables of a perturbation run on the terminal: areas with intervals, and gaps compared with the controls.

The files ``areas_VALUE.md`` have the same numbers, and the intervals of the comparisons too.
"""

from __future__ import annotations

from collections.abc import Sequence

from clipmapper.console import print_table
from perturbation.report.curves import SIGNIFICANT
from perturbation.report.rows import Row
from perturbation.report.tables import ARROWS, MISSING

_ABOVE = {True: "yes", False: "no", None: MISSING}  # None: there is no other control
_NO_STAR = "\u00a0"  # a space that is not cut off, so that the numbers are aligned
_DIRECTIONS = (
    "positive: the highest scores are removed first, so less is better (↓); negative: the lowest scores first, so more "
    "is better (↑); gap: negative minus positive"
)
_CONTROLS = (
    "* p < 0.05 in a paired permutation test, with Holm's correction over the controls of the modality; above "
    "controls: for all of them, the difference is significant and its 95 % interval is above 0 (areas_{}.md has the "
    "intervals)"
)


def print_areas(rows: Sequence[Row], gaps: Sequence[Row]) -> None:
    """Print the tables of the main value, which is the first one in the rows, for each modality.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        gaps: The entry ``gaps`` of ``perturbation.json``.
    """
    value = next(name for name in rows[0] if f"{name}_ci95" in rows[0])
    gaps = [row for row in gaps if row["measure"] == value]
    for modality in dict.fromkeys(row["modality"] for row in rows):
        own = [row for row in gaps if row["modality"] == modality]
        _print_modality([row for row in rows if row["modality"] == modality], own, value)
        if any(row["controls"] for row in own):
            _print_controls(own)


def _print_modality(rows: Sequence[Row], gaps: Sequence[Row], value: str) -> None:
    area = "auc" if value == "accuracy" else f"{value}_auc"
    cells = {(row["explainer"], row["direction"]): _with_interval(row[area], row[f"{area}_ci95"]) for row in rows}
    cells |= {(row["explainer"], "gap"): _with_interval(row["gap"], row["gap_ci95"]) for row in gaps}
    columns = list(dict.fromkeys(direction for _, direction in cells))
    heads = ["explainer", *(f"{direction} {ARROWS[direction]}" for direction in columns)]
    grid = [
        [name, *(cells[name, direction] for direction in columns)]
        for name in dict.fromkeys(row["explainer"] for row in rows)
    ]
    if gaps:
        above = {row["explainer"]: _ABOVE[row["above_controls"]] for row in gaps}
        heads, grid = [*heads, "above controls"], [[*row, above[row[0]]] for row in grid]
    what, samples = f"area under the {value} curve in percent with 95 % intervals", f"{rows[0]['samples']} samples"
    print_table(f"{rows[0]['modality']} tokens removed, {samples}: {what}", heads, grid, _DIRECTIONS)


def _print_controls(gaps: Sequence[Row]) -> None:
    """Print the difference of every explainer's gap to that of each control of the modality."""
    controls = list(dict.fromkeys(each["control"] for row in gaps for each in row["controls"]))
    found = {(row["explainer"], each["control"]): each for row in gaps for each in row["controls"]}
    grid = [[row["explainer"], *(_difference(found.get((row["explainer"], c))) for c in controls)] for row in gaps]
    title = f"{gaps[0]['modality']} tokens removed: gap minus the gap of each control, in percent"
    heads = ["explainer", *(f"{control} ↑" for control in controls)]
    print_table(title, heads, grid, _CONTROLS.format(gaps[0]["measure"]))


def _with_interval(value: float, interval: Sequence[float | None]) -> str:
    low, high = interval
    return f"{value:.1f}" if low is None or high is None else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _difference(compared: Row | None) -> str:
    if compared is None:
        return f"{MISSING}{_NO_STAR}"
    return f"{compared['difference']:+.1f}" + ("*" if compared["p_holm"] < SIGNIFICANT else _NO_STAR)
