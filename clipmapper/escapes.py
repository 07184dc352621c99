"""Text in tables and figures: one function for each format, after which nothing in a text is read as markup.

Names of explainers, measures and models, answers and words can hold any character. HTML is escaped by Jinja and
:func:`html.escape`, text on a terminal by :func:`clipmapper.text.printable`.
"""

from __future__ import annotations

import re

from clipmapper.text import printable

_LATEX = {
    **{mark: f"\\{mark}" for mark in "{}$&%#_"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after the end of a row, [ begins its optional argument, and * is a part of it
    "*": "{*}",
}
# Markdown's marks in a line of text or in a table; an underscore only counts at the edge of a word.
_MARKDOWN = re.compile(r"[\\`*|<&$~]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")
_FORMULA = ("=", "+", "-", "@")


def latex(text: str) -> str:
    """Return a text for LaTeX, in which no character is a command or ends a cell."""
    return "".join(_LATEX.get(each, each) for each in printable(text))


def markdown(text: str) -> str:
    """Return a text for a line or a table of Markdown, with backslashes before characters that are marks."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(text))


def csv_text(value: object) -> object:
    """Return a cell of a CSV file; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def figure_text(text: str) -> str:
    """Return a text for a figure of matplotlib, without formulas; no legend leaves it out."""
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
