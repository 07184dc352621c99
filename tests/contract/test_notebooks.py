"""The saved notebooks are runs of their sources, small, and without errors or paths of a machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import write_notebooks
from hooks import notebooks
from nbclient.exceptions import CellExecutionError
from public import PROJECT

SOURCES = write_notebooks.sources()
MOST_BYTES = 400_000


def saved(source: Path) -> Any:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shape(cell: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Return the kinds of a cell's outputs, and their formats."""
    return [(each.output_type, tuple(sorted(each.get("data", {})))) for each in cell.get("outputs", [])]


def test_every_source_is_saved_and_every_notebook_has_a_source() -> None:
    assert len(SOURCES) == 3
    assert {path.stem for path in write_notebooks.NOTEBOOKS.glob("*.ipynb")} == {path.stem for path in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_was_run_from_its_source(source: Path) -> None:
    notebook, expected = saved(source), write_notebooks.read_source(source)
    nbformat.validate(notebook)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in expected.cells], (
        "run python docs/write_notebooks.py"
    )
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {each.output_type for each in outputs(notebook)} <= {"execute_result", "stream", "display_data"}
    assert notebook.metadata == write_notebooks.KERNEL


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_shows_pictures_and_a_test(source: Path) -> None:
    data = [each.get("data", {}) for each in outputs(saved(source))]
    assert [each for each in data if "image/png" in each]
    assert [each for each in data if "<table" in each.get("text/html", "") and "data:image/png" in each["text/html"]]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_path(source: Path) -> None:
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST_BYTES
    without_pictures = re.sub(r"[A-Za-z0-9+/=\\n]{200,}", "", text)
    assert re.findall(r"(?<![\w.<])/(?:home|root|work|tmp|usr|opt|Users|private|var)\b[^\s\"]*", without_pictures) == []
    assert str(PROJECT) not in text


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp() / "notebooks"  # the scenes are drawn once
    found = write_notebooks.executed(source, root)
    assert [shape(cell) for cell in found.cells] == [shape(cell) for cell in saved(source).cells]


def test_a_cell_that_fails_stops_the_run(tmp_path: Path) -> None:
    source = tmp_path / "failing.py"
    source.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        write_notebooks.executed(source, tmp_path)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_has_its_text_code_and_pictures(source: Path) -> None:
    notebook = saved(source)
    text = notebooks.page_of(source.with_suffix(".ipynb"))
    for cell in notebook.cells:
        assert cell.source in text
    pictures = sum("image/png" in each.get("data", {}) for each in outputs(notebook))
    assert text.count("](data:image/png;base64,") == pictures
    assert text.count("```python\n") == sum(cell.cell_type == "code" for cell in notebook.cells)
    assert text.startswith("# ")
    assert f'<a href="{source.stem}.ipynb" download>' in text
