"""Tables of the areas: CSV with all digits, and Markdown and LaTeX with rounded numbers.

The Markdown table also compares the gaps with those of the controls.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

from clipmapper.escapes import csv_text, latex, markdown
from perturbation.report.curves import SIGNIFICANT
from perturbation.report.rows import Row

MISSING = "–"  # the explainer does not score the modality
ARROWS = {"positive": "↓", "negative": "↑", "gap": "↑"}
LATEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}


def area_table(rows: Sequence[Row], gaps: Sequence[Row], value: str) -> dict[str, str]:
    """Return the table of one value's areas, in percent, as text by file suffix: ``csv``, ``md`` and ``tex``.

    Args:
        rows: The entry ``rows`` of ``perturbation.json``.
        gaps: The entry ``gaps`` of ``perturbation.json``.
        value: The value whose areas are shown: ``accuracy``, ``probability`` or another value of the rows.
    """
    cells = area_cells(rows, gaps, value)
    compared = [row for row in gaps if row["measure"] == value and row["controls"]]
    markdown = _markdown(cells, compared) + (f"\n{_control_table(compared)}" if compared else "")
    return {"csv": _csv(cells), "md": markdown, "tex": _latex(cells, value)}


def area_cells(rows: Sequence[Row], gaps: Sequence[Row], value: str) -> list[Row]:
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
        about = (csv_text(cell[key]) for key in ("explainer", "modality", "direction"))
        writer.writerow([*about, cell["area"], *cell["ci95"]])
    return text.getvalue()


def _markdown(cells: Sequence[Row], compared: Sequence[Row]) -> str:
    columns, grid = _grid(cells)
    above = {(row["explainer"], row["modality"]): "yes" if row["above_controls"] else "no" for row in compared}
    modalities = list(dict.fromkeys(row["modality"] for row in compared))
    heads = [f"{modality} {direction} {ARROWS[direction]}" for modality, direction in columns]
    best = [_best(cells, column) for column in columns]
    rows = [
        [
            explainer,
            *(f"**{_cell_text(c)}**" if _is_best(c, b) else _cell_text(c) for c, b in zip(row, best, strict=True)),
            *(above.get((explainer, modality), MISSING) for modality in modalities),
        ]
        for explainer, row in grid.items()
    ]
    return markdown_table(["explainer", *heads, *(f"{modality} above controls" for modality in modalities)], rows)


def _control_table(compared: Sequence[Row]) -> str:
    """Return a table of the difference of every explainer's gap to that of each control of the modality."""
    at = {(row["explainer"], row["modality"], each["control"]): each for row in compared for each in row["controls"]}
    columns = list(dict.fromkeys((modality, control) for _, modality, control in at))
    heads = ["gap minus that of", *(f"{modality}: {control}" for modality, control in columns)]
    explainers = dict.fromkeys(row["explainer"] for row in compared)
    rows = [[name, *(_difference_text(at.get((name, *column))) for column in columns)] for name in explainers]
    note = (
        "* p < 0.05 in a paired permutation test, with Holm's correction over the controls of the modality. Above "
        "controls: for all of them, the difference is significant and its 95 % interval is above 0."
    )
    return f"{markdown_table(heads, rows)}\n{note}\n"


def _difference_text(compared: Row | None) -> str:
    if compared is None:
        return MISSING
    low, high = compared["ci95"]
    star = "*" if compared["p_holm"] < SIGNIFICANT else ""
    return f"{compared['difference']:+.1f}{star}" + ("" if low is None else f" [{low:+.1f}, {high:+.1f}]")


def _latex(cells: Sequence[Row], value: str) -> str:
    columns, grid = _grid(cells)
    heads = [f"{modality} {direction} {LATEX[ARROWS[direction]]}" for modality, direction in columns]
    best = [_best(cells, column) for column in columns]
    lines = [f"% area under the {latex(value)} curve in percent, with 95 % intervals; needs booktabs"]
    lines += [r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule"]
    lines += ["explainer & " + " & ".join(heads) + r" \\", r"\midrule"]
    for explainer, row in grid.items():
        pairs = zip(row, best, strict=True)
        texts = [rf"\textbf{{{_cell_text(c)}}}" if _is_best(c, b) else _cell_text(c) for c, b in pairs]
        lines.append(latex(explainer) + " & " + " & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _grid(cells: Sequence[Row]) -> tuple[list[tuple[str, str]], dict[str, list[Row | None]]]:
    """Return the columns as (modality, direction), and the cells of every explainer in the order of the columns.

    A cell is None if the explainer does not score the modality.
    """
    columns = list(dict.fromkeys((cell["modality"], cell["direction"]) for cell in cells))
    at = {(cell["explainer"], cell["modality"], cell["direction"]): cell for cell in cells}
    explainers = dict.fromkeys(cell["explainer"] for cell in cells)
    return columns, {explainer: [at.get((explainer, *column)) for column in columns] for explainer in explainers}


def _best(cells: Sequence[Row], column: tuple[str, str]) -> float:
    found = [cell["area"] for cell in cells if (cell["modality"], cell["direction"]) == column]
    return float(min(found) if column[1] == "positive" else max(found))


def _is_best(cell: Row | None, best: float) -> bool:
    return cell is not None and cell["area"] == best


def _cell_text(cell: Row | None) -> str:
    if cell is None:
        return MISSING
    low, high = cell["ci95"]
    return f"{cell['area']:.1f}" if low is None else f"{cell['area']:.1f} [{low:.1f}, {high:.1f}]"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Return a Markdown table.

    Args:
        heads: The headings of the columns, which are text.
        rows: The cells of each row.
        names: Number of columns at the left that contain text and are aligned left; the others are aligned right.
    """
    rules = ["---"] * names + ["---:"] * (len(heads) - names)
    lines = [[*map(markdown, cells[:names]), *cells[names:]] for cells in rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in ([*map(markdown, heads)], rules, *lines))
