"""The command ``cache``: what it lists, verifies and removes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch

from clipmapper.data.images import FileImage
from clipmapper.features.hashes import Hashes
from clipmapper.features.shard import write_shard
from clipmapper.process.partial import partial_path
from clipmapper.storage.kept import SMALLEST, kept_of

Command = Callable[..., tuple[int, str, list[str]]]
NAME = "m-images-float32-0123456789abcdef"
EARLIER = "shapes-m/images-0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with two stores, one of them unused for 40 days, one of an earlier version, and a file left over."""
    root = tmp_path / "cache"
    for name, count in ((NAME, 3), ("old-texts-float16-0123456789abcdef", 2)):
        (root / "stores" / name).mkdir(parents=True)
        features = [torch.full((2, 4), float(k)) for k in range(count)]
        write_shard(root / "stores" / name, name, [bytes([k] * 16) for k in range(count)], features)
    then = time.time() - 40 * 24 * 3600
    for path in (root / "stores" / name, *(root / "stores" / name).iterdir()):
        os.utime(path, (then, then))
    (root / EARLIER).mkdir(parents=True)
    (root / EARLIER / "rows.bin").write_bytes(bytes(2000))
    left = partial_path(root / "stores" / NAME / "shard")
    left.with_name(left.name.replace(str(os.getpid()), str(2**22 - 1))).write_bytes(b"half")
    partial_path(root / "stores" / NAME / "shard").write_bytes(b"of a running process")
    (root / "hashes").mkdir()
    return root


def parts(out: str) -> dict[str, str]:
    """Return the kind of each part by its name, from the run's file."""
    folder = Path(out.splitlines()[-1].removeprefix("results are in "))
    found = json.loads((folder / "cache.json").read_text())["parts"]
    return {Path(each["path"]).name.split(".")[0] or "left": each["kind"] for each in found}


def run(command: Command, cache: Path, *arguments: str) -> tuple[int, str, list[str]]:
    return command("cache", f"paths.cache={cache}", f"paths.runs={cache.parent / 'runs'}", *arguments)


def test_all_parts_are_listed(cache: Path, command: Command) -> None:
    status, out, errors = run(command, cache)
    assert (status, errors) == (0, [])
    kinds = {NAME: "store", "old-texts-float16-0123456789abcdef": "store", "hashes": "index"}
    assert parts(out) == {**kinds, Path(EARLIER).name: "earlier", "left": "left over"}
    line = next(line for line in out.splitlines() if EARLIER in line)
    assert line.split()[1:] == ["earlier", "2.0", "KiB", "0"]
    line = next(line for line in out.splitlines() if "old-texts" in line)
    assert (line.split()[1:3], line.split()[-1]) == (["store", "2"], "40")


def test_a_damaged_shard_is_removed(cache: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    shard = next((cache / "stores" / NAME).glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1  # in the rows of the last item
    shard.write_bytes(content)
    status, out, _ = run(command, cache, "do=verify")
    assert status == 0
    assert f"{NAME}: 3 items were in damaged shards, which are removed" in out
    assert "old-texts-float16-0123456789abcdef: intact" in out
    assert f"feature cache is damaged, its items are computed again: {shard}" in capsys.readouterr().err
    assert not shard.exists()


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
@pytest.mark.parametrize("part", ["hashes", "tables"])
def test_a_damaged_index_or_table_is_removed(
    cache: Path, command: Command, capsys: pytest.CaptureFixture[str], part: str, damage: str
) -> None:
    good, bad = write_index_and_tables(cache)[part]
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes({"bit": bytes(content), "cut": bytes(content[:40]), "empty": b""}[damage])
    status, out, _ = run(command, cache, "do=verify")
    assert status == 0
    assert f"\n{part}: 1 damaged files, which are removed\n" in out
    assert f"\n{'tables' if part == 'hashes' else 'hashes'}: intact\n" in out
    assert f"{bad}: damaged; what it has is read again" in capsys.readouterr().err
    assert (good.exists(), bad.exists()) == (True, False)


def write_index_and_tables(cache: Path) -> dict[str, list[Path]]:
    """Write two files of the index of images and two tables, and return them by their folder."""
    for name in "ab":
        (cache.parent / name).mkdir()
        image = cache.parent / name / "image.png"
        image.write_bytes(name.encode())
        os.utime(image, (0, 0))
        index = Hashes(cache / "hashes")
        with patch("clipmapper.features.hashes.SETTLED", 0):
            index.read(FileImage(image))
        index.save()
        kept_of(cache, name, name, lambda: pa.table({"numbers": pa.array(range(SMALLEST // 8))}))
    return {part: sorted((cache / part).glob("*.arrow")) for part in ("hashes", "tables")}


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_it_asks_before_it_removes(
    cache: Path, command: Command, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool
) -> None:
    terminal = StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    status, out, _ = run(command, cache, "do=prune")
    assert status == 0
    assert ("removed 2 parts, 2.0 KiB" in out) is removed
    assert (cache / EARLIER).exists() is not removed
    assert len(list((cache / "stores").glob("*/.shard*.partial"))) == (1 if removed else 2)  # one is in use
    assert len(list((cache / "stores").glob("*/shard*"))) == 2


def test_without_a_terminal_nothing_is_removed_unless_it_is_told_to(
    cache: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))
    status, _, errors = run(command, cache, "do=prune", "unused_days=30")
    assert (status, len(errors)) == (1, 1)
    assert "3 parts with" in errors[0]
    assert "give yes=true" in errors[0]
    assert (cache / EARLIER).exists()
    status, out, errors = run(command, cache, "do=prune", "unused_days=30", "--yes")
    assert (status, errors) == (0, [])
    assert parts(out) == {NAME: "store", "hashes": "index"}
    assert [path.name for path in (cache / "stores").iterdir()] == [NAME]


def test_a_file_is_no_cache(tmp_path: Path, command: Command) -> None:
    (tmp_path / "cache").touch()
    status, _, errors = run(command, tmp_path / "cache")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith(f"error: paths.cache={tmp_path / 'cache'} is not a folder; give")
