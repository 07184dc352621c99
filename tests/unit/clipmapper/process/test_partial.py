"""Temporary files: names, and removal of those that killed processes have left."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from clipmapper.files import versions, write_atomic
from clipmapper.process import partial
from clipmapper.process.partial import filled, named_errors, partial_path, remove_left_over


def test_two_processes_with_one_id_have_different_names(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "store") != partial_path(tmp_path / "store")


def test_only_what_killed_processes_have_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = partial_path(tmp_path / "mine")
    ended = subprocess.Popen(["true"])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        dead, dead_folder = partial_path(tmp_path / "dead"), partial_path(tmp_path / "folder")
        patch.setattr(partial, "place", lambda: "0" * 8)
        elsewhere, old = partial_path(tmp_path / "elsewhere"), partial_path(tmp_path / "old")
    for path in (mine, dead, elsewhere, old, tmp_path / "result"):
        path.touch()
    dead_folder.mkdir()
    (dead_folder / "rows.bin").touch()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    remove_left_over(tmp_path.glob("*"))
    assert {*tmp_path.iterdir()} == {mine, elsewhere, tmp_path / "result"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), OSError("No space left")])
def test_a_folder_is_removed_after_an_error_which_names_it(tmp_path: Path, failure: OSError) -> None:
    def fail() -> None:
        with filled(tmp_path / "cache" / "store") as half:
            (half / "rows.bin").touch()
            raise failure

    with pytest.raises(OSError, match="No space left") as error:
        fail()
    assert error.value.filename == str(tmp_path / "cache" / "store")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_of_an_error_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, named_errors(tmp_path / "other"):
        (tmp_path / "missing").read_bytes()
    assert error.value.filename == str(tmp_path / "missing")


def test_an_atomic_write_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("git", [None, "exit 128", "sleep 60", "kill -9 $$", "printf '\\377'"])
def test_no_result_needs_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: str | None) -> None:
    if git is not None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{git}\n")
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if git else str(tmp_path))
    monkeypatch.setattr("clipmapper.files._GIT", 0.5)
    assert "commit" not in versions()
