"""Tables of the areas: CSV with all digits, and Markdown and LaTeX with rounded numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

from perturbation.report.rows import Row

ARROWS = {"positive": "↓", "negative": "↑", "gap": "↑"}
LATEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}


def area_table(rows: Sequence[Row], gaps: Sequence[Row], value: str) -> dict[str, str]:
    """Return the table of one value's areas, in percent, as text by file suffix: ``csv``, ``md`` and ``tex``.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        gaps: The entry ``gaps`` of ``perturbation.json``.
        value: The value whose areas are shown: ``accuracy``, ``probability`` or another value of the rows.
    """
    cells = _cells(rows, gaps, value)
    return {"csv": _csv(cells), "md": _markdown(cells), "tex": _latex(cells, value)}


def headline(rows: Sequence[Row], gaps: Sequence[Row]) -> str:
    """Return the Markdown table of the main value, which is the first one in the rows."""
    first = next(name for name in rows[0] if f"{name}_ci95" in rows[0])
    return area_table(rows, gaps, first)["md"]


def _cells(rows: Sequence[Row], gaps: Sequence[Row], value: str) -> list[Row]:
    """Return one cell per explainer, modality and direction; the gap counts as a third direction."""
    prefix = "" if value == "accuracy" else f"{value}_"
    about = ("explainer", "modality", "direction")
    found = [
        {**{key: row[key] for key in about}, "area": row[f"{prefix}auc"], "ci95": row[f"{prefix}auc_ci95"]}
        for row in rows
    ]
    found += [
        {
            "explainer": r["explainer"],
            "modality": r["modality"],
            "direction": "gap",
            "area": r["gap"],
            "ci95": r["gap_ci95"],
        }
        for r in gaps
        if r["measure"] == value
    ]
    order = list(dict.fromkeys(cell["modality"] for cell in found))
    return sorted(found, key=lambda cell: order.index(cell["modality"]))


def _csv(cells: Sequence[Row]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["explainer", "modality", "direction", "area", "ci95_low", "ci95_high"])
    for cell in cells:
        writer.writerow([cell["explainer"], cell["modality"], cell["direction"], cell["area"], *cell["ci95"]])
    return text.getvalue()


def _markdown(cells: Sequence[Row]) -> str:
    columns, grid = _grid(cells)
    heads = [f"{modality} {direction} {ARROWS[direction]}" for modality, direction in columns]
    best = [_best(cells, column) for column in columns]
    rows = [
        [
            explainer,
            *(f"**{_cell_text(c)}**" if c["area"] == b else _cell_text(c) for c, b in zip(row, best, strict=True)),
        ]
        for explainer, row in grid.items()
    ]
    return markdown_table(["explainer", *heads], rows)


def _latex(cells: Sequence[Row], value: str) -> str:
    columns, grid = _grid(cells)
    heads = [f"{modality} {direction} {LATEX[ARROWS[direction]]}" for modality, direction in columns]
    best = [_best(cells, column) for column in columns]
    lines = [f"% area under the {value} curve in percent, with 95 % intervals; needs booktabs"]
    lines += [r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule"]
    lines += ["explainer & " + " & ".join(heads) + r" \\", r"\midrule"]
    for explainer, row in grid.items():
        pairs = zip(row, best, strict=True)
        texts = [rf"\textbf{{{_cell_text(c)}}}" if c["area"] == b else _cell_text(c) for c, b in pairs]
        lines.append(explainer.replace("_", r"\_") + " & " + " & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _grid(cells: Sequence[Row]) -> tuple[list[tuple[str, str]], dict[str, list[Row]]]:
    """Return the columns as (modality, direction), and the cells of every explainer in the order of the columns."""
    columns = list(dict.fromkeys((cell["modality"], cell["direction"]) for cell in cells))
    at = {(cell["explainer"], cell["modality"], cell["direction"]): cell for cell in cells}
    explainers = dict.fromkeys(cell["explainer"] for cell in cells)
    return columns, {explainer: [at[explainer, *column] for column in columns] for explainer in explainers}


def _best(cells: Sequence[Row], column: tuple[str, str]) -> float:
    found = [cell["area"] for cell in cells if (cell["modality"], cell["direction"]) == column]
    return float(min(found) if column[1] == "positive" else max(found))


def _cell_text(cell: Row) -> str:
    low, high = cell["ci95"]
    return f"{cell['area']:.1f}" if low is None else f"{cell['area']:.1f} [{low:.1f}, {high:.1f}]"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Return a Markdown table.

    Args:
        heads: The headings of the columns.
        rows: The cells of each row.
        names: Number of columns at the left that contain text and are aligned left; the others are aligned right.
    """
    rules = ["---"] * names + ["---:"] * (len(heads) - names)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (heads, rules, *rows))
