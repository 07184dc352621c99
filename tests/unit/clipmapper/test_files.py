"""Atomic writing and reading of JSON files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json


def test_a_written_file_can_be_read_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "split.json"
    write_json(path, {"val": [1, 2]})
    assert read_json(path) == {"val": [1, 2]}
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "file" / "split.json", {})
