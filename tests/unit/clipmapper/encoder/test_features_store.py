"""The feature store: padded batches equal slices, and every kind of damage is detected and repaired."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.encoder.features import DamagedStore, FeatureStore, open_or_none, write_store

LENGTHS = [3, 1, 0, 5, 2, 4]


def items(lengths: list[int], width: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, width)).astype(np.float32) for length in lengths]


def batches(lengths: list[int]) -> Iterator[list[np.ndarray]]:
    whole = items(lengths)
    return iter([whole[:2], whole[2:]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", batches(LENGTHS), "float32")
    return tmp_path / "store"


def test_written_items_are_read_back(folder: Path) -> None:
    store = FeatureStore(folder)
    assert store.lengths.tolist() == LENGTHS
    assert store.width == 4
    for i, item in enumerate(items(LENGTHS)):
        tokens = store.gather(np.array([i]))
        assert tokens.features.shape == (1, *item.shape)
        np.testing.assert_array_equal(tokens.features[0].numpy(), item)
        assert tokens.valid.all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3, 4, 5]), min_size=1, max_size=9))
def test_a_padded_batch_equals_the_slices(chosen: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        write_store(Path(root) / "store", batches(LENGTHS), "float32")
        tokens = FeatureStore(Path(root) / "store").gather(np.array(chosen))
    assert tokens.features.shape == (len(chosen), max(LENGTHS[i] for i in chosen), 4)
    for k, i in enumerate(chosen):
        n = LENGTHS[i]
        np.testing.assert_array_equal(tokens.features[k, :n].numpy(), items(LENGTHS)[i])
        assert not tokens.features[k, n:].any()
        assert tokens.valid[k].tolist() == [True] * n + [False] * (tokens.valid.shape[1] - n)
        assert tokens.index[k].tolist() == list(range(tokens.index.shape[1]))


@pytest.mark.parametrize("place", [0, 2, 5])
def test_an_item_without_rows_is_all_padding_at_any_position(tmp_path: Path, place: int) -> None:
    lengths = [2, 3, 1, 2, 4, 1]
    lengths[place] = 0
    write_store(tmp_path / "store", iter([items(lengths)]), "float32")
    store = FeatureStore(tmp_path / "store")
    tokens = store.gather(np.array([place, 1, place]))
    assert not tokens.valid[0].any()
    assert not tokens.features[0].any()
    np.testing.assert_array_equal(tokens.features[1].numpy(), items(lengths)[1])
    assert store.gather(np.array([place])).features.shape == (1, 0, 4)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    write_store(tmp_path / "store", batches(LENGTHS), "float16")
    tokens = FeatureStore(tmp_path / "store").gather(np.array([3]))
    assert tokens.features.numpy().dtype == np.float32
    np.testing.assert_array_equal(tokens.features[0].numpy(), items(LENGTHS)[3].astype(np.float16).astype(np.float32))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def edit(folder: Path, **changes: object) -> None:
    written = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**written, "meta": {**written["meta"], **changes}}))


def shift(folder: Path, item: int, by: int) -> None:
    offsets = np.load(folder / "offsets.npy")
    offsets[item] += by
    np.save(folder / "offsets.npy", offsets)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit of the rows": lambda f: flip(f / "rows.bin", 17),
    "the last bit of the rows": lambda f: flip(f / "rows.bin", -1),
    "rows cut off": lambda f: cut(f / "rows.bin", 16),
    "rows too long": lambda f: (f / "rows.bin").write_bytes((f / "rows.bin").read_bytes() + bytes(16)),
    "rows gone": lambda f: (f / "rows.bin").unlink(),
    "rows empty": lambda f: (f / "rows.bin").write_bytes(b""),
    "meta gone": lambda f: (f / "meta.json").unlink(),
    "meta cut off": lambda f: cut(f / "meta.json", 5),
    "meta empty": lambda f: (f / "meta.json").write_bytes(b""),
    "meta of another kind": lambda f: (f / "meta.json").write_text("[1, 2]"),
    "meta in no encoding": lambda f: (f / "meta.json").write_bytes(b"\xff\xfe\xff"),
    "meta without a field": lambda f: (f / "meta.json").write_text('{"bytes": 240}'),
    "meta with an unknown type": lambda f: edit(f, dtype="no such"),
    "meta with another field": lambda f: edit(f, checksum=1),
    "meta with a larger width": lambda f: edit(f, width=8),
    "offsets gone": lambda f: (f / "offsets.npy").unlink(),
    "offsets cut off": lambda f: cut(f / "offsets.npy", 3),
    "offsets empty": lambda f: (f / "offsets.npy").write_bytes(b""),
    "offsets of another kind": lambda f: (f / "offsets.npy").write_bytes(b"no array"),
    "last offset too large": lambda f: shift(f, -1, 1),
}


SILENT: dict[str, Callable[[Path], object]] = {
    "meta with a smaller width": lambda f: edit(f, width=2),
    "meta with a smaller type": lambda f: edit(f, dtype="float16"),
    "an offset shifted": lambda f: shift(f, 1, 1),
    "last offset too small": lambda f: shift(f, -1, -1),
    "no offsets": lambda f: np.save(f / "offsets.npy", np.array([], np.int64)),
}


def check_repaired(folder: Path, errors: str) -> None:
    assert "damaged" in errors
    assert str(folder) in errors
    write_store(folder, batches(LENGTHS), "float32")
    store = open_or_none(folder)
    assert store is not None
    for i, item in enumerate(items(LENGTHS)):
        np.testing.assert_array_equal(store.gather(np.array([i])).features[0].numpy(), item)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_detected_reported_and_repaired(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    DAMAGES[name](folder)
    with pytest.raises(DamagedStore):
        FeatureStore(folder)
    assert open_or_none(folder) is None
    check_repaired(folder, capsys.readouterr().err)


@pytest.mark.parametrize("name", SILENT)
def test_damage_outside_the_rows_is_detected(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    SILENT[name](folder)
    assert open_or_none(folder) is None
    check_repaired(folder, capsys.readouterr().err)


def test_an_empty_folder_is_reported_as_damaged_and_a_missing_folder_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_or_none(tmp_path / "none") is None
    assert capsys.readouterr().err == ""
    (tmp_path / "store").mkdir()
    assert open_or_none(tmp_path / "store") is None
    check_repaired(tmp_path / "store", capsys.readouterr().err)


def test_interrupted_writing_leaves_no_files(tmp_path: Path) -> None:
    def interrupted() -> Iterator[list[np.ndarray]]:
        yield items([2, 3])
        assert not (tmp_path / "store").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", interrupted(), "float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("damaged", "found"), [(True, [7]), (False, LENGTHS)])
def test_only_a_damaged_store_is_replaced_when_the_new_one_is_complete(
    folder: Path, damaged: bool, found: list[int]
) -> None:
    if damaged:
        (folder / "rows.bin").write_bytes(b"damaged")

    def others() -> Iterator[list[np.ndarray]]:
        assert (folder / "rows.bin").is_file()  # the old store still exists
        yield items([7])

    write_store(folder, others(), "float32")
    assert FeatureStore(folder).lengths.tolist() == found
    assert [path.name for path in folder.parent.iterdir()] == ["store"]
