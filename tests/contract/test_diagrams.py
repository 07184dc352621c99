"""The drawings of docs/architecture.md are current, and their arrows are imports of the code."""

from __future__ import annotations

import re

import pytest
import write_diagrams
from public import PROJECT
from test_rooms import project_graph
from write_diagrams import IMPORTS, PACKAGES

BOXES = {name: box for band in PACKAGES.values() for name, box in band.items()}


def inside(file: str, rooms: tuple[str, ...]) -> bool:
    return any(file == room or file.startswith(f"{room}/") for room in rooms)


CLI = "perturbation/cli.py"  # it imports the module of the command that is called, by its name


def graph() -> dict[str, set[str]]:
    """Return the imports of all files, with those that the console command makes by name."""
    named = re.findall(r'"((?:clipmapper|perturbation)(?:\.\w+)+)"', (PROJECT / CLI).read_text(encoding="utf-8"))
    files = {f"{name.replace('.', '/')}.py" for name in named} & project_graph().keys()
    return {**project_graph(), CLI: project_graph()[CLI] | files}


def imports(start: str, end: str) -> list[tuple[str, str]]:
    """Return the imports from files of one box to files of another."""
    return [
        (file, target)
        for file, found in graph().items()
        for target in found
        if inside(file, BOXES[start].rooms) and inside(target, BOXES[end].rooms)
    ]


@pytest.mark.parametrize("name", write_diagrams.drawings())
def test_a_drawing_is_current(name: str) -> None:
    stored = (PROJECT / "docs" / "diagrams" / name).read_text(encoding="utf-8")
    assert stored == write_diagrams.drawings()[name], "run python docs/write_diagrams.py"


@pytest.mark.parametrize(("start", "end"), IMPORTS)
def test_an_arrow_is_an_import(start: str, end: str) -> None:
    assert imports(start, end)


def test_every_room_of_a_box_has_files() -> None:
    files = [*project_graph()]
    assert [room for box in BOXES.values() for room in box.rooms if not any(inside(f, (room,)) for f in files)] == []


def test_an_import_against_an_arrow_is_not_found() -> None:
    assert imports("trace", "pcommands") == []
