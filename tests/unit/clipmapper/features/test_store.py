"""The feature store: padded batches equal slices, and every kind of damage is noticed and repaired."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.shard import as_keys, write_shard
from clipmapper.features.store import FeatureStore

LENGTHS = [3, 1, 0, 5, 2, 4]
KEYS = [bytes([200, *([0] * 7), k, *([0] * 7)]) for k in range(6)]  # all with the same first half


def items(lengths: list[int] = LENGTHS, width: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, width, generator=generator) for length in lengths]


def written(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write six items in two shards."""
    folder.mkdir(exist_ok=True)
    found = [item.to(dtype) for item in items()]
    write_shard(folder, folder.name, KEYS[:2], found[:2])
    write_shard(folder, folder.name, KEYS[2:], found[2:])


def opened(folder: Path, again: Callable[[], None] | None = None) -> FeatureStore:
    def fail() -> None:
        raise AssertionError("computed again")

    catalogue = Catalogue(folder)
    catalogue.refresh()
    return FeatureStore(catalogue, as_keys(KEYS), again or fail)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path / "store")
    return tmp_path / "store"


def test_written_items_are_read_back(folder: Path) -> None:
    store = opened(folder)
    assert store.lengths.tolist() == LENGTHS
    assert (store.width, store.dtype) == (4, torch.float32)
    for i, item in enumerate(items()):
        tokens = store.gather(np.array([i]))
        assert tokens.features.shape == (1, *item.shape)
        assert torch.equal(tokens.features[0], item)
        assert tokens.valid.all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3, 4, 5]), min_size=1, max_size=9))
def test_a_padded_batch_equals_the_slices(chosen: list[int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        written(Path(root) / "store")
        tokens = opened(Path(root) / "store").gather(np.array(chosen))
    assert tokens.features.shape == (len(chosen), max(LENGTHS[i] for i in chosen), 4)
    for k, i in enumerate(chosen):
        n = LENGTHS[i]
        assert torch.equal(tokens.features[k, :n], items()[i])
        assert not tokens.features[k, n:].any()
        assert tokens.valid[k].tolist() == [True] * n + [False] * (tokens.valid.shape[1] - n)
        assert tokens.index[k].tolist() == list(range(tokens.index.shape[1]))


@pytest.mark.parametrize("place", [0, 2, 5])
def test_an_item_without_rows_is_all_padding_at_any_position(tmp_path: Path, place: int) -> None:
    lengths = [2, 3, 1, 2, 4, 1]
    lengths[place] = 0
    store = FeatureStore.written(tmp_path / "store", items(lengths))
    tokens = store.gather(np.array([place, 1, place]))
    assert not tokens.valid[0].any()
    assert not tokens.features[0].any()
    assert torch.equal(tokens.features[1], items(lengths)[1])
    assert store.gather(np.array([place])).features.shape == (1, 0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_stay_in_the_precision_in_which_they_are_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    written(tmp_path / "store", dtype)
    tokens = opened(tmp_path / "store").gather(np.array([3, 1]))
    assert tokens.features.dtype == dtype
    assert torch.equal(tokens.features[0], items()[3].to(dtype))


def test_the_same_items_in_two_shards_are_read_from_one(folder: Path) -> None:
    write_shard(folder, "store", KEYS, items())
    assert torch.equal(opened(folder).gather(np.array([4])).features[0], items()[4])


def test_a_batch_of_a_stored_dataset_does_not_read_what_it_does_not_need(folder: Path) -> None:
    """Damage in an item that is not read is not noticed, since only items that are read are verified."""
    flip(folder, rows_of(items()[3]))
    store = opened(folder)
    assert torch.equal(store.gather(np.array([4, 5, 0])).features[0, :2], items()[4])
    with pytest.raises(AssertionError, match="computed again"):
        store.gather(np.array([3]))


def rows_of(item: Tensor) -> bytes:
    return item.numpy().tobytes()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*"))


def flip(folder: Path, found: bytes) -> None:
    """Flip a bit of the bytes ``found``, wherever they are."""
    for path in shards(folder):
        content = bytearray(path.read_bytes())
        if (place := content.find(found)) >= 0:
            content[place] ^= 1
            path.write_bytes(content)
            return
    raise AssertionError("not found")


def larger(folder: Path) -> Path:
    return max(shards(folder), key=lambda path: path.stat().st_size)


def cut(folder: Path, by: int) -> None:
    path = larger(folder)
    path.write_bytes(path.read_bytes()[:-by])


def changed(folder: Path, **changes: Tensor) -> None:
    """Write the larger shard again with other tensors and its old metadata."""
    path = larger(folder)
    with safe_open(path, "pt") as file:
        tensors, about = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({**tensors, **changes}, path, about)


def foreign(folder: Path) -> None:
    other = folder.with_name("other")
    written(other)
    larger(folder).unlink()
    shutil.copy(larger(other), folder)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one bit of the rows": lambda f: flip(f, rows_of(items()[3])),
    "the last bit of the rows": lambda f: flip(f, rows_of(items()[5])[-4:]),
    "a bit of a key": lambda f: flip(f, KEYS[3]),
    "a bit of a checksum": lambda f: changed(f, sums=torch.tensor([1, 2, 3, 4])),
    "lengths shifted": lambda f: changed(f, lengths=torch.tensor([1, 4, 2, 4])),
    "another width": lambda f: changed(f, rows=torch.cat(items()[2:]).view(-1, 2)),
    "another dtype": lambda f: changed(f, rows=torch.cat(items()[2:]).view(torch.int32)),
    "no metadata": lambda f: flip(f, b'"head":"'),
    "cut off": lambda f: cut(f, 16),
    "too long": lambda f: larger(f).write_bytes(larger(f).read_bytes() + bytes(16)),
    "empty": lambda f: larger(f).write_bytes(b""),
    "text": lambda f: larger(f).write_text("[1, 2]"),
    "of another store": foreign,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_its_items_are_computed_again(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    DAMAGES[name](folder)
    (intact,) = set(shards(folder)) - {larger(folder)} if name not in ("empty", "text") else shards(folder)[:1]
    catalogue = Catalogue(folder)
    catalogue.refresh()

    def again() -> None:
        """Write the items that the shards lack, as the encoder would."""
        lacking = [k for k, there in enumerate(catalogue.has(as_keys(KEYS)).tolist()) if not there]
        if lacking:
            write_shard(folder, "store", [KEYS[k] for k in lacking], [items()[k] for k in lacking])
        catalogue.refresh()

    again()
    store = FeatureStore(catalogue, as_keys(KEYS), again)
    for i, item in enumerate(items()):
        assert torch.equal(store.gather(np.array([i])).features[0], item), intact
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"feature cache is damaged, its items are computed again: {folder}/shard-")
    assert len(shards(folder)) == 2
    for i, item in enumerate(items()):
        assert torch.equal(opened(folder).gather(np.array([i])).features[0], item)


def test_damaged_features_without_an_encoder_end_in_one_line(tmp_path: Path) -> None:
    FeatureStore.written(tmp_path / "store", items())
    flip(tmp_path / "store", rows_of(items()[3]))
    catalogue = Catalogue(tmp_path / "store")
    catalogue.refresh()

    def again() -> None:
        raise UserError("no encoder")

    store = FeatureStore(catalogue, catalogue.shards[0].keys, again)
    with pytest.raises(UserError, match="no encoder"):
        store.gather(np.array([3]))


def test_a_missing_folder_is_an_empty_store_and_is_not_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = Catalogue(tmp_path / "none")
    catalogue.refresh()
    assert not catalogue.has(as_keys(KEYS)).any()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clipmapper.features.shard._save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*shard-"):
        write_shard(tmp_path, "store", KEYS, items())
    assert list(tmp_path.iterdir()) == []


def test_gathered_tokens_can_be_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pinned(tensor: torch.Tensor) -> torch.Tensor:  # as torch does, but without a GPU
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    store = FeatureStore.written(tmp_path / "store", [torch.randn(n, 4) for n in (3, 5)])
    tokens = store.gather(np.array([0, 1, 0]))
    found = tokens.pin_memory()
    for name in ("features", "valid", "index"):
        assert torch.equal(getattr(found, name), getattr(tokens, name))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_items_that_were_read_take_no_memory(tmp_path: Path) -> None:
    rows = [torch.randn(1 << 16, 8) for _ in range(4)]
    store = FeatureStore.written(tmp_path / "large", rows)
    before = mapped(tmp_path)
    assert torch.equal(store.gather(np.arange(4)).features, torch.stack(rows))
    assert mapped(tmp_path) == before < 100


def mapped(folder: Path) -> int:
    """Return how many KiB of the files of a folder are mapped and in memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_a_shard_that_was_removed_is_computed_again(tmp_path: Path) -> None:
    written(tmp_path / "store")
    store = opened(tmp_path / "store", lambda: written(tmp_path / "store") or store._catalogue.refresh())
    for path in (tmp_path / "store").iterdir():
        path.unlink()
    assert torch.equal(store.gather(np.array([3])).features[0], items()[3])
