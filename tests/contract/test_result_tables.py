"""The tables of the results are those of the committed per-sample results."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from public import PROJECT

from clipmapper.files import read_json
from clipmapper.storage.tables import read_table

SCRIPT = PROJECT / "docs" / "results" / "write_tables.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_tables", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_table_is_made_from_the_results(script: ModuleType) -> None:
    known = script.tables()
    marked = 0
    for page in script.PAGES:
        text = page.read_text(encoding="utf-8")
        assert script.filled(text, known) == text, page.name
        marked += text.count("<!-- table ")
    assert marked >= 2


def test_only_what_is_between_the_marks_is_replaced(script: ModuleType) -> None:
    page = "before\n<!-- table a b -->\n\nold | 1\n\n<!-- end -->\nbetween\n<!-- table c -->\n<!-- end -->\nafter\n"
    assert script.filled(page, {"a b": "new\n", "c": "too\n"}) == (
        "before\n<!-- table a b -->\n\nnew\n\n<!-- end -->\nbetween\n<!-- table c -->\n\ntoo\n\n<!-- end -->\nafter\n"
    )
    with pytest.raises(KeyError):
        script.filled(page, {"a b": "new\n"})


def test_the_committed_results_are_small() -> None:
    files = [path for path in (PROJECT / "docs" / "results" / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6


def test_every_committed_result_has_a_checksum(capsys: pytest.CaptureFixture[str]) -> None:
    """Reading verifies it, and a file without one would be named on stderr."""
    read = {".parquet": read_table, ".json": lambda path: read_json(path, own=True)}
    files = [path for path in (PROJECT / "docs" / "results" / "data").rglob("*") if path.suffix in read]
    for path in files:
        read[path.suffix](path)
    assert len(files) > 20
    assert capsys.readouterr().err == ""
