"""Kept tables: files are read again only if they have changed, and a damaged table is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from ranks import in_ranks

from clipmapper.storage import kept as module
from clipmapper.storage.kept import kept, kept_of


class Reader:
    """A reader of a file that counts its calls."""

    def __init__(self, file: Path, cache: Path | None):
        self.file, self.cache, self.calls = file, cache, 0

    def __call__(self) -> list[str]:
        return kept(self.cache, "texts", [self.file], self._read)["text"].to_pylist()

    def _read(self) -> pa.Table:
        self.calls += 1
        return pa.table({"text": self.file.read_text().split()})


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(module, "SMALLEST", 1)
    monkeypatch.setattr(module, "SETTLED", 0)
    file = tmp_path / "file.txt"
    file.write_text("one two é")
    return Reader(file, tmp_path / "cache")


def table(reader: Reader) -> Path:
    assert reader.cache is not None
    (path,) = (reader.cache / "tables").iterdir()
    return path


def test_the_second_reading_is_of_the_table(reader: Reader) -> None:
    assert reader() == reader() == ["one", "two", "é"]
    assert reader.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("one two"),
        lambda file: os.utime(file, (1, 1)),
        lambda file: file.with_name("new").write_text("one two é") and file.with_name("new").replace(file),
    ],
)
def test_a_changed_file_is_read_again(reader: Reader, change: Callable[[Path], object]) -> None:
    reader()
    change(reader.file)
    assert reader() == reader() == reader.file.read_text().split()
    assert reader.calls == 2
    assert table(reader).is_file()  # in place of the old one


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: b"", lambda c: c.replace(b"onetwo", b"onetwa")])
def test_a_damaged_table_is_written_again(reader: Reader, damage: Callable[[bytes], bytes]) -> None:
    reader()
    content = table(reader).read_bytes()
    table(reader).write_bytes(damage(content))
    assert table(reader).read_bytes() != content
    assert reader() == ["one", "two", "é"]
    assert reader.calls == 2
    assert table(reader).read_bytes() == content


@pytest.mark.parametrize("key", ["SMALLEST", "SETTLED"])
def test_small_and_new_files_are_not_kept(reader: Reader, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(module, key, 1000)
    assert reader() == reader() == ["one", "two", "é"]
    assert reader.calls == 2


def test_a_cache_that_cannot_be_written_keeps_nothing(reader: Reader) -> None:
    assert reader.cache is not None
    reader.cache.write_text("no folder")
    assert reader() == reader() == ["one", "two", "é"]
    reader.cache = None
    assert reader() == ["one", "two", "é"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reader._read

    def changing() -> pa.Table:
        found = whole()
        reader.file.write_text("other")
        return found

    monkeypatch.setattr(reader, "_read", changing)
    reader()
    monkeypatch.undo()
    monkeypatch.setattr(module, "SMALLEST", 1)
    monkeypatch.setattr(module, "SETTLED", 0)
    assert reader() == ["other"]


def test_other_settings_are_read_again(reader: Reader) -> None:
    found = [kept(reader.cache, "texts", [reader.file], reader._read, settings) for settings in ("a", "b", "a")]
    assert reader.calls == 2
    assert found[0] == found[1] == found[2]


def test_what_follows_from_a_content_is_made_once_for_it(reader: Reader) -> None:
    assert reader.cache is not None
    for content in ("a", "b", "a", "b"):
        assert kept_of(reader.cache, "texts", content, reader._read)["text"].to_pylist() == ["one", "two", "é"]
    assert reader.calls == 2


def test_small_results_are_not_kept(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader.cache is not None
    monkeypatch.setattr(module, "SMALLEST", 1000)
    for _ in range(2):
        kept_of(reader.cache, "texts", "a", reader._read)
    assert reader.calls == 2
    assert not reader.cache.exists()


def test_the_first_of_several_processes_reads_the_files(reader: Reader, tmp_path: Path) -> None:
    read = tmp_path / "read"

    def make() -> pa.Table:
        with read.open("a") as file:
            file.write("once")
        return reader._read()

    def work(rank: int) -> list[str]:
        return kept(reader.cache, "texts", [reader.file], make)["text"].to_pylist()

    assert in_ranks(tmp_path, work) == [["one", "two", "é"]] * 2
    assert read.read_text() == "once"
