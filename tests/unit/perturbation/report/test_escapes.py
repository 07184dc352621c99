"""Names and texts in every kind of table and figure: whatever they hold, they are shown and not interpreted."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from clipmapper.console import print_table
from clipmapper.escapes import csv_text, figure_text, latex, markdown
from clipmapper.text import printable
from explain.figures import Explanation, Photo, Sample, draw
from perturbation.randomise.figure import draw_curves
from perturbation.report.figures import curve_figure
from perturbation.report.tables import area_table, markdown_table

NASTY = (
    "a|b",
    "$x$ $\\frac{$",
    "\\textbf{a}\\",
    "<script>alert(1)</script>",
    "a & b &amp; c",
    "100 %",
    "_mine_",
    "__dunder__",
    "a\nb\r\nc",
    "\x1b[31mred\x07\x00",
    "*bold* `code` ~~gone~~",
    "[name](http://x.y)",
    "=1+1",
    "+1",
    "-1",
    "@sum",
    "#{^~}",
    "quotes \" and '",
    "[red]rich[/red] :smile:",
    "\u202eright to left\u202c",
    "שלום",
    "子犬 😀",
    "[1] first",
    "* first",
)


def rows_of(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the entries ``rows`` and ``gaps`` of a run with one explainer."""
    band = [[0.1, 0.1], [0.9, 0.9]]
    about = {"explainer": name, "modality": "image", "control": False}
    rows = [
        {**about, "direction": direction, "samples": 3, "steps": [0, 1]}
        | {"accuracy": [0.9, 0.1], "accuracy_ci95": band, "auc": 50.0, "auc_ci95": [40.0, 60.0]}
        for direction in ("positive", "negative")
    ]
    gap = {**about, "measure": "accuracy", "gap": 1.0, "gap_ci95": [0.5, 1.5], "above_controls": True}
    control = {"control": name, "difference": 1.0, "ci95": [0.5, 1.5], "p_holm": 0.01}
    return rows, [{**gap, "controls": [control]}]


@pytest.mark.parametrize("name", NASTY)
def test_markdown_tables_keep_their_cells_and_show_the_text(name: str) -> None:
    table = area_table(*rows_of(name), "accuracy")["md"]
    assert "\x1b" not in table
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(table)
    cells = [each for each in tokens if each.type == "inline"]
    shown = ["".join(child.content for child in each.children or () if child.type == "text") for each in cells]
    assert shown[0] == "explainer"
    assert shown.count(printable(name).strip()) == 2  # the explainer, and that of the table of controls
    assert f"image: {printable(name)}".strip() in shown  # its heading as a control
    kinds = {child.type for each in cells for child in each.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"}
    assert sum(each.type == "tr_open" for each in tokens) == 4


@pytest.mark.parametrize("name", NASTY)
def test_csv_tables_hold_the_text_and_no_formula(name: str) -> None:
    heads, *lines = csv.reader(StringIO(area_table(*rows_of(name), "accuracy")["csv"]))
    assert [len(line) for line in lines] == [len(heads)] * 3
    for line in lines:
        assert line[0].removeprefix("'") == printable(name)
        assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_text(-1.5) == -1.5
    assert csv_text("-1.5") == "'-1.5"


# What LaTeX shows for the commands that stand for characters.
SHOWN = {"textbackslash{}": "\\", "textasciicircum{}": "^", "textasciitilde{}": "~", "textless{}": "<"}
SHOWN |= {"textgreater{}": ">", **{mark: mark for mark in "{}$&%#_"}}
LATEX = re.compile(r"\\(" + "|".join(map(re.escape, SHOWN)) + r")|\{([\[*])\}|([^\\{}$&%#_^~<>])")


@pytest.mark.parametrize("name", NASTY)
def test_latex_text_holds_no_command_and_shows_the_text(name: str) -> None:
    written = latex(name)
    found = list(LATEX.finditer(written))
    assert "".join(each[0] for each in found) == written
    assert "".join(SHOWN.get(each[1] or "", "") or each[2] or each[3] for each in found) == printable(name)
    table = area_table(*rows_of(name), "accuracy")["tex"]
    assert f"\n{written} & " in table
    assert table.count("\\\\\n") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is missing")
def test_latex_compiles(tmp_path: Path) -> None:
    tables = "\n\n".join(area_table(*rows_of(name), "accuracy")["tex"] for name in NASTY if name.isascii())
    text = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "a.tex").write_text(text, encoding="utf-8")
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True, timeout=60)


Figures = dict[str, Callable[[str], Any]]


def curves_of_layers(name: str) -> Any:
    about = {"explainer": name, "modality": "image", "samples": 3, "ci95": [0.1, 0.2], "control": False}
    return draw_curves([{**about, "layers": k, "layer": name, "correlation": 0.15} for k in range(2)])


def sample_figure(name: str) -> Any:
    photo = Photo(Image.new("RGB", (40, 40)), (0.0, 0.0, 40.0, 40.0))
    scores = Explanation(name, np.eye(2), [0.5, 0.2])
    return draw(Sample(photo, f"is it {name}?", [name, "it"], name, 0.5, [scores], f"people: {name}"))


FIGURES: Figures = {
    "curves": lambda name: curve_figure(rows_of(name)[0], "accuracy"),
    "randomised layers": curves_of_layers,
    "explained sample": sample_figure,
}


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize("name", NASTY)
def test_figures_show_names_without_formulas(kind: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph|.*missing from")
        figure = FIGURES[kind](name)
        figure.savefig(BytesIO(), format="png", dpi=30)
    if kind != "explained sample":
        [legend] = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
        [label] = [text.get_text() for text in legend.get_texts()]
        assert label.replace("\\$", "$").lstrip().startswith(printable(name))
        assert "$" not in label.replace("\\$", "")


@pytest.mark.parametrize("name", NASTY)
def test_the_terminal_shows_one_line_per_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(name, ["explainer", name], [[name, "1.0"]], name)
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\x00", "\r", "\u202e"}
    assert out.count(printable(name).strip()) >= 2
    assert len(out.splitlines()) == 6


@pytest.mark.parametrize("text", ["raw_attention", "0.512° [0.4, 0.6]", "image ↓", "a-b.c (2)", "café", "1 + 1"])
def test_ordinary_text_stays_unchanged(text: str) -> None:
    assert markdown(text) == figure_text(text) == csv_text(text) == text
    assert markdown_table([text], [[text]]) == f"| {text} |\n| --- |\n| {text} |\n"
