"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json


def test_a_written_file_is_read_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "split.json"
    write_json(path, {"val": [1, 2]})
    assert read_json(path) == {"val": [1, 2]}
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_json(tmp_path / "file" / "split.json", {})
