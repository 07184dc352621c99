"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table whose first ``names`` columns are text, aligned left, and the others numbers, aligned right."""
    rules = ["---"] * names + ["---:"] * (len(heads) - names)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (heads, rules, *rows))
