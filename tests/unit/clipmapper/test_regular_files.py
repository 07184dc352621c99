"""Only regular files are read, by every reader: a device, a pipe, a socket or a folder is one line at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipmapper import files
from clipmapper.any_model.samples import read_table as read_samples
from clipmapper.checkpoint import read_checkpoint
from clipmapper.data.hub import read_parquet
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.storage.tables import read_table
from explain.sample.image import opened

READERS: dict[str, Callable[[Path], Any]] = {
    "JSON": read_json,
    "image": lambda path: load_rgb(FileImage(path)),
    "image of any model": opened,
    "checkpoint": read_checkpoint,
    "weights": lambda path: read_checkpoint(path.rename(path.with_suffix(".safetensors"))),
    "Parquet": read_table,
    "table of samples": read_samples,
    "Parquet of questions": lambda path: read_parquet(path, "test"),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "socket": bound_socket,
    "device": device,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_one_line_at_once(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    KINDS[kind](Path("it"))
    with pytest.raises((UserError, ValueError), match="it") as error:
        READERS[reader](Path("it"))
    assert "\n" not in str(error.value)


def test_a_file_above_its_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    monkeypatch.setitem(files.LIMITS, "image", 50)
    with pytest.raises(UserError, match=r"image\.png: has .* GiB, more than the .* GiB for image; give a smaller file"):
        load_rgb(FileImage(tmp_path / "image.png"))
