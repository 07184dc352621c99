"""The words of the project: docstrings begin with a verb or a noun, and all text is plain technical English."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from public import PROJECT

SOURCES = ("clipmapper", "explain", "perturbation", "scripts", "tests", "docs")
FILES = [
    *(path for folder in (*SOURCES, "configs") for path in sorted((PROJECT / folder).rglob("*"))),
    *sorted(PROJECT.glob("*.md")),
]
PYTHON = [path for path in FILES if path.suffix == ".py"]
TEXT = [path for path in FILES if path.suffix in (".py", ".yaml", ".md") and path.name != Path(__file__).name]

START = re.compile(r"(Of|By|Under|With|As|In|On|For|From|At|To|That|Until|Without|The same|Nobody|So)\b")
#: Words that a reader whose first language is not English would look up, or that have a plainer one.
UNUSUAL = re.compile(
    r"\b(hangs? on|mend(s|ed|ing)?|data sets?|data-set|nobody|anybody|whoever|anew|goes on|of one's own|says of|"
    r"what is said|takes part|hand(s|ed)? over|thereby|whereof|herein|befalls?|betimes|lest)\b",
    re.IGNORECASE,
)


def docstrings(text: str) -> list[tuple[int, str]]:
    """Return the line and the docstring of the module and of all its classes and functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return [(getattr(node, "lineno", 1), found) for node in nodes if (found := ast.get_docstring(node))]


def bad_starts(text: str) -> list[tuple[int, str]]:
    """Return the docstrings that begin with neither a verb nor a noun."""
    return [(line, found.splitlines()[0]) for line, found in docstrings(text) if START.match(found)]


def unusual(text: str) -> list[tuple[int, str]]:
    """Return the unusual words with their lines."""
    return [(number, m[0]) for number, line in enumerate(text.splitlines(), 1) for m in UNUSUAL.finditer(line)]


def found_in(paths: list[Path], find: Callable[[str], list[tuple[int, str]]]) -> dict[str, list[tuple[int, str]]]:
    """Return what ``find`` finds in each file, for the files in which it finds something."""
    found = {path.relative_to(PROJECT).as_posix(): find(path.read_text(encoding="utf-8")) for path in paths}
    return {name: entries for name, entries in found.items() if entries}


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    assert len(PYTHON) > 300
    assert found_in(PYTHON, bad_starts) == {}


def test_no_file_has_unusual_words() -> None:
    assert found_in(TEXT, unusual) == {}


def test_a_bad_start_and_an_unusual_word_are_found() -> None:
    text = 'def f():\n    """Of one sample."""\n\ndef g():\n    """Return the same."""  # nobody reads this\n'
    assert bad_starts(text) == [(1, "Of one sample.")]
    assert unusual(text) == [(5, "nobody")]
