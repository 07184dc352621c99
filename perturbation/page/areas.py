"""Tables of areas, and of paired comparisons of gaps with controls and between explainers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perturbation.page.grid import grid_table
from perturbation.page.numbers import NBSP, interval, number, p_value, percent, plain, unit
from perturbation.page.view import Cell, Table
from perturbation.report.curves import SIGNIFICANT
from perturbation.report.rows import Row
from perturbation.report.tables import ARROWS, MISSING, area_cells

ABOVE = "above all controls"
DIRECTIONS = (
    "Positive ↓: the tokens with the highest scores are removed first; smaller is better. Negative ↑: those with the "
    "lowest; larger is better. Gap ↑: negative minus positive; larger is better, and a random order has 0 on average."
)
JUDGED = f"“{ABOVE}”: for each control, the difference of the gaps is positive and told apart from 0."


@dataclass(frozen=True)
class Scope:
    """What the tables of one value of a run are about."""

    value: str  #: name of the value, such as ``accuracy``
    over: str  #: what the intervals cover, such as "40 questions"
    models: int  #: number of trained models
    controls: frozenset[str]  #: names of the controls
    folded: bool = False  #: whether the tables are folded

    def paired(self, minus: str, correction: str) -> list[str]:
        """Return the recipe of a table of paired differences."""
        recipe = [
            f"Gap of the {plain(self.value)} of the explainer in the row minus that of {minus} in the column, in "
            "points of area. ↑ A positive number: the explainer in the row has the larger gap.",
            f"In brackets: 95 % bootstrap intervals of the paired difference over {self.over}. "
            f"p: paired permutation test with Holm's correction over {correction}.",
            "° not told apart: the interval contains 0, or p is 0.05 or more.",
        ]
        model = "This rests on one trained model: other training seeds may give other differences."
        return [*recipe, model] if self.models == 1 else recipe


def told_apart(comparison: Row) -> bool:
    """Return whether a paired comparison shows a difference: by its 95 % interval and by its corrected test."""
    low, high = comparison["ci95"]
    return low is not None and (low > 0 or high < 0) and bool(comparison["p_holm"] < SIGNIFICANT)


def area_table(rows: Sequence[Row], gaps: Sequence[Row], scope: Scope) -> list[Table]:
    """Return the areas of one value with their intervals, and whether each gap is above those of all controls."""
    cells = {
        (each["explainer"], each["modality"], f"{each['direction']}{NBSP}{ARROWS[each['direction']]}"): Cell(
            number(each["area"]), interval(each["ci95"])
        )
        for each in area_cells(rows, gaps, scope.value)
    }
    above = {
        (row["explainer"], row["modality"], ABOVE): Cell("yes" if row["above_controls"] else "no")
        for row in gaps
        if row["measure"] == scope.value and row["above_controls"] is not None
    }
    steps = ", ".join(map(percent, rows[0]["steps"]))
    recipe = [
        f"Area under the curve of the mean {plain(scope.value)} over the removed share of the tokens, "
        f"{unit(scope.value)}: the trapezoid rule over the steps {steps} %; the whole input is the first point.",
        DIRECTIONS,
        f"In brackets: 95 % bootstrap intervals over {scope.over}.",
        *([JUDGED] if above else []),
    ]
    return grid_table(f"Areas of the {plain(scope.value)}", recipe, cells | above, scope.controls, scope.folded)


def control_table(gaps: Sequence[Row], scope: Scope) -> list[Table]:
    """Return the differences between the gap of every explainer and those of the controls, if there are any."""
    own = [row for row in gaps if row["measure"] == scope.value]
    compared = {
        (row["explainer"], row["modality"], each["control"]): _difference(each)
        for row in own
        for each in row["controls"]
    }
    return grid_table(
        f"Gap of the {plain(scope.value)} minus that of each control ↑",
        scope.paired("the control", "the controls of the modality"),
        _with_diagonal(compared, [row["explainer"] for row in own], scope.controls),
        scope.controls,
        scope.folded,
    )


def pair_table(comparisons: Sequence[Row], scope: Scope) -> list[Table]:
    """Return the differences between the gaps of the explainers that are no controls, if there are several.

    Args:
        comparisons: The content of ``comparisons.json``.
        scope: What the table is about.
    """
    compared: dict[tuple[str, str, str], Cell] = {}
    for row in comparisons:
        first, second = row["first"], row["second"]
        if (row["direction"], row["measure"]) == ("gap", scope.value) and not {first, second} & scope.controls:
            compared[first, row["modality"], second] = _difference(row)
            compared[second, row["modality"], first] = _difference(turned(row))
    names = list(dict.fromkeys(name for name, _, _ in compared))
    return grid_table(
        f"Gap of the {plain(scope.value)}, explainers compared ↑",
        scope.paired("the explainer", "all pairs of explainers and controls"),
        _with_diagonal(compared, names, frozenset(names)),
        folded=scope.folded,
    )


def turned(comparison: Row) -> Row:
    """Return the comparison of the second explainer with the first one."""
    low, high = comparison["ci95"]
    ends = [None if end is None else -end for end in (high, low)]
    return {**comparison, "difference": -comparison["difference"], "ci95": ends}


def _with_diagonal(
    compared: dict[tuple[str, str, str], Cell], names: Sequence[str], others: frozenset[str]
) -> dict[tuple[str, str, str], Cell]:
    """Return the cells in the order of ``names``, in rows and in columns, with a dash where both are the same."""
    modalities = dict.fromkeys(modality for _, modality, _ in compared)
    scored = {(name, modality) for name, modality, _ in compared}
    every = [(name, modality, other) for modality in modalities for name in names for other in names if other in others]
    return {
        key: compared.get(key, Cell(MISSING))
        for key in dict.fromkeys(every)
        if key in compared or (key[0] == key[2] and key[:2] in scored)
    }


def _difference(row: Row) -> Cell:
    text = number(row["difference"], signed=True)
    return Cell(text, interval(row["ci95"], signed=True), p_value(row["p_holm"]), marked=not told_apart(row))
