"""``export`` writes a folder that ``explain.explain`` loads, and refuses to overwrite other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import PROJECT

import explain

Command = Callable[..., tuple[int, str, list[str]]]


def test_the_folder_is_explained(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    status, out, errors = command("export", f"paths.root={tmp_path}")
    assert (status, errors) == (0, [])
    folder = tmp_path / "models" / "shapes-tiny"
    assert f"wrote shapes-tiny to {folder}; " in out
    e = explain.explain(str(folder), image=PROJECT / "docs" / "pictures" / "scene.png", text="a red circle")
    assert e.image.shape == (6, 6)
    assert [word for word, _ in e.words] == ["a", "red", "circle"]


def test_other_files_are_not_overwritten(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    status, _, errors = command("export", f"paths.root={tmp_path}", f"output={tmp_path}")
    assert status == 1
    assert errors == [f"error: {tmp_path}: exists and is not a model's folder; give output=FOLDER, a new folder"]
