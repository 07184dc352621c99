"""Tables with one row per name, and columns that are grouped by modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perturbation.page.view import Cell, Table
from perturbation.report.tables import MISSING


def grid_table(
    title: str,
    recipe: Sequence[str],
    cells: Mapping[tuple[str, str, str], Cell],
    muted: frozenset[str] = frozenset(),
    folded: bool = False,
) -> list[Table]:
    """Return a table, in a list that is empty if there are no cells.

    Args:
        title: The title of the table.
        recipe: How its numbers are made and read.
        cells: The cells by the name of the row, the heading of a group of columns, and the heading of the column. Rows,
            groups and the columns of a group have the order in which they occur first.
        muted: Names of rows that are less important, such as controls.
        folded: Whether the reader must open the table.
    """
    names = list(dict.fromkeys(name for name, _, _ in cells))
    columns = list(dict.fromkeys((group, head) for _, group, head in cells))
    groups = list(dict.fromkeys(group for group, _ in columns))
    columns.sort(key=lambda column: groups.index(column[0]))
    rows = [(name, [cells.get((name, *column), Cell(MISSING)) for column in columns]) for name in names]
    spans = [(group, sum(column[0] == group for column in columns)) for group in groups]
    heads = [head for _, head in columns]
    return [Table(title, recipe, heads, rows, spans, muted=muted, folded=folded)] if cells else []
