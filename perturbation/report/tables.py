"""The areas as tables: CSV with every digit, Markdown and LaTeX to be read; and what of the ceiling they reach."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

Row = dict[str, Any]
ARROWS = {"positive": "↓", "negative": "↑", "gap": "↑"}
LATEX = {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}


def area_table(rows: Sequence[Row], gaps: Sequence[Row], measure: str) -> dict[str, str]:
    """The table of one measure's areas in percent: ``csv``, ``md`` and ``tex``.

    Args:
        rows, gaps: As ``perturbation.json`` holds them.
        measure: ``accuracy`` or ``probability``.
    """
    cells = _cells(rows, gaps, measure)
    return {"csv": _csv(cells), "md": _markdown(cells), "tex": _latex(cells, measure)}


def ceiling_table(rows: Sequence[Row]) -> str:
    """Markdown: every explainer's area between that of random orders and the best, and its share of the way, percent.

    Args:
        rows: ``ceiling`` as ``perturbation.json`` holds it.
    """
    lines = [
        "| measure | modality | direction | explainer | samples | random | area | best | share |",
        "| --- | --- | --- | --- |" + " ---: |" * 5,
    ]
    for row in sorted(rows, key=lambda row: (row["measure"], row["modality"], row["direction"])):  # stable
        direction = f"{row['direction']} {ARROWS[row['direction']]}"
        areas = " | ".join(f"{row[key]:.1f}" for key in ("random_auc", "auc", "best_auc"))
        share = "–" if row["share"] is None else f"{100 * row['share']:.1f}"
        about = f"| {row['measure']} | {row['modality']} | {direction} | {row['explainer']} | {row['samples']} |"
        lines.append(f"{about} {areas} | {share} |")
    best = "Best: for text, the best subset at every step; for images, an order found by greedy search by probability."
    return "\n".join([*lines, "", best]) + "\n"


def _cells(rows: Sequence[Row], gaps: Sequence[Row], measure: str) -> list[Row]:
    """One cell for every explainer, modality and direction, the gap being a direction of its own."""
    prefix = "" if measure == "accuracy" else f"{measure}_"
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
        if r["measure"] == measure
    ]
    order = list(dict.fromkeys(cell["modality"] for cell in found))
    return sorted(found, key=lambda cell: order.index(cell["modality"]))  # stable


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
    lines = ["| explainer | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for explainer, row in grid.items():
        texts = [f"**{_text(c)}**" if c["area"] == b else _text(c) for c, b in zip(row, best, strict=True)]
        lines.append(f"| {explainer} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _latex(cells: Sequence[Row], measure: str) -> str:
    columns, grid = _grid(cells)
    heads = [f"{modality} {direction} {LATEX[ARROWS[direction]]}" for modality, direction in columns]
    best = [_best(cells, column) for column in columns]
    lines = [f"% area under the {measure} curve in percent, with 95 % intervals; needs booktabs"]
    lines += [r"\begin{tabular}{l" + "r" * len(heads) + "}", r"\toprule"]
    lines += ["explainer & " + " & ".join(heads) + r" \\", r"\midrule"]
    for explainer, row in grid.items():
        texts = [rf"\textbf{{{_text(c)}}}" if c["area"] == b else _text(c) for c, b in zip(row, best, strict=True)]
        lines.append(explainer.replace("_", r"\_") + " & " + " & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _grid(cells: Sequence[Row]) -> tuple[list[tuple[str, str]], dict[str, list[Row]]]:
    """The columns, and the cells of every explainer in their order."""
    columns = list(dict.fromkeys((cell["modality"], cell["direction"]) for cell in cells))
    at = {(cell["explainer"], cell["modality"], cell["direction"]): cell for cell in cells}
    explainers = dict.fromkeys(cell["explainer"] for cell in cells)
    return columns, {explainer: [at[explainer, *column] for column in columns] for explainer in explainers}


def _best(cells: Sequence[Row], column: tuple[str, str]) -> float:
    found = [cell["area"] for cell in cells if (cell["modality"], cell["direction"]) == column]
    return float(min(found) if column[1] == "positive" else max(found))


def _text(cell: Row) -> str:
    low, high = cell["ci95"]
    return f"{cell['area']:.1f}" if low is None else f"{cell['area']:.1f} [{low:.1f}, {high:.1f}]"
