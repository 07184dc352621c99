"""Paths without links."""

from __future__ import annotations

from pathlib import Path

from clipmapper.places import real_path


def test_a_real_path_has_no_links_and_a_loop_of_links_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert real_path(tmp_path / "link" / ".." / "link" / "a") == tmp_path.resolve() / "folder" / "a"
    assert real_path(str(tmp_path / "loop" / "a")) == tmp_path.resolve() / "loop" / "a"
