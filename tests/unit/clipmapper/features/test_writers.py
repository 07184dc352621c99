"""Several processes fill one store: nothing is encoded twice, nothing is lost, and the end of one stops no other."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import store_writer
import torch
from store_writer import ITEMS, fill
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.features import claims, filling
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.claims import Claims
from clipmapper.features.filling import Filling
from clipmapper.features.shard import as_keys

FORK = multiprocessing.get_context("fork")


def encoded(*logs: Path) -> Counter[int]:
    return Counter(int(line) for log in logs if log.exists() for line in log.read_text().split())


def test_writers_at_the_same_time_share_the_work(tmp_path: Path) -> None:
    for number in range(3):
        folder, start = tmp_path / f"store-{number}", FORK.Barrier(4)

        def work(writer: int, folder: Path = folder, start: multiprocessing.synchronize.Barrier = start) -> None:
            start.wait(60)
            fill(folder, folder.with_name(f"{folder.name}-log-{writer}"), pause=0.002, order=1 if writer % 2 else -1)

        writers = [FORK.Process(target=work, args=(writer,)) for writer in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        assert [writer.exitcode for writer in writers] == [0] * 4
        logs = [folder.with_name(f"{folder.name}-log-{writer}") for writer in range(4)]
        assert encoded(*logs) == Counter(range(40))
        assert sum(log.exists() for log in logs) > 1
        assert {path.name.split("-")[0] for path in folder.iterdir()} == {"shard", ".lock"}


@pytest.mark.slow
def test_eight_writers_for_200_rounds_with_equal_process_ids(tmp_path: Path) -> None:
    """Two of the writers run in their own namespaces of process ids, as in two containers."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("namespaces of process ids are not permitted here")
    rounds = 200
    line = [sys.executable, str(Path(store_writer.__file__)), str(tmp_path)]
    writers = [
        subprocess.Popen([*(alone if number < 2 else []), *line, str(number), "8", str(rounds)]) for number in range(8)
    ]
    assert [writer.wait(1200) for writer in writers] == [0] * 8
    for count in range(rounds):
        assert encoded(*tmp_path.glob(f"log-{count}-*")) == Counter(range(40)), count
        assert {path.name.split("-")[0] for path in (tmp_path / f"round-{count}").iterdir()} == {"shard", ".lock"}


def test_a_killed_writer_loses_one_shard(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def killed() -> None:
        catalogue = Catalogue(folder)

        def encode(items: Mapping[bytes, int]) -> Iterator[tuple[bytes, Tensor]]:
            for key, number in items.items():
                if number == 18:
                    (folder / f"{next(folder.glob('.claim*')).name.replace('claim', 'shard')}").touch()  # half written
                    os.kill(os.getpid(), signal.SIGKILL)
                yield key, torch.full((2, 3), float(number))

        work = Filling(catalogue, encode, "float16", lambda count=1, note=None: None, 5)
        keys = list(ITEMS)
        work.run({key: ITEMS[key] for key in keys[k : k + 5]} for k in range(0, 40, 5))

    writer = FORK.Process(target=killed)
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    assert len(list(folder.glob(".*.partial"))) == 2
    fill(folder, tmp_path / "log")
    assert encoded(tmp_path / "log") == Counter(range(15, 40))
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"shard", ".lock"}


def test_an_error_of_the_encoder_keeps_what_was_encoded_before(tmp_path: Path) -> None:
    def encode(items: Mapping[bytes, int]) -> Iterator[tuple[bytes, Tensor]]:
        for key, number in items.items():
            yield key, torch.full((2, 3), float("nan") if number == 8 else float(number))

    work = Filling(Catalogue(tmp_path / "store"), encode, "float16", lambda count=1, note=None: None, 5)
    keys = list(ITEMS)
    with pytest.raises(UserError, match=r"features are NaN or infinite in float16; give encoder.feature_dtype=float32"):
        work.run({key: ITEMS[key] for key in keys[k : k + 5]} for k in range(0, 40, 5))
    fill(tmp_path / "store", tmp_path / "log")
    assert encoded(tmp_path / "log") == Counter(range(8, 40))


def foreign_claim(folder: Path, keys: list[bytes]) -> Path:
    """Write a claim of a process on another machine."""
    folder.mkdir(exist_ok=True)
    path = Claims(folder).claim(keys)
    place = path.name.split(".")[2]
    return path.rename(path.with_name(path.name.replace(place, "00000000-1-12345678")))


def test_the_claim_of_another_machine_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other items are encoded meanwhile; the claimed ones when the claim ends without them."""
    folder, keys = tmp_path / "store", list(ITEMS)
    claim = foreign_claim(folder, keys[10:20])
    seen: list[Counter[int]] = []

    def sleep(seconds: float) -> None:
        seen.append(encoded(tmp_path / "log"))
        if len(seen) == 3:
            claim.unlink()

    monkeypatch.setattr(filling.time, "sleep", sleep)
    fill(folder, tmp_path / "log")
    rest = Counter({*range(10), *range(20, 40)})
    assert seen[:3] == [rest] * 3
    assert encoded(tmp_path / "log") == Counter(range(40))
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"waiting for process {os.getpid()} on ")
    assert errors[0].endswith(", which is encoding 10 of the items")


def test_a_claim_that_a_dead_machine_left_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = foreign_claim(tmp_path / "store", list(ITEMS)[10:20])
    old = time.time() - claims.EXPIRES - 1
    os.utime(claim, (old, old))
    fill(tmp_path / "store", tmp_path / "log")
    assert encoded(tmp_path / "log") == Counter(range(40))
    assert capsys.readouterr().err == ""
    assert not claim.exists()


def test_a_claim_is_renewed_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED", 0.01)
    mine = Claims(tmp_path)
    with mine.locked():
        path = mine.claim(list(ITEMS))
        os.utime(path, (0, 0))
        assert mine.of_others() == {}  # as if it had ended
        path = mine.claim(list(ITEMS))
    with mine.claimed(path):
        os.utime(path, (0, 0))
        for _ in range(500):
            if path.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60
    assert not path.exists()


def test_a_complete_store_in_a_read_only_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    fill(folder, tmp_path / "first")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(filling.os, "access", lambda *_: False)  # as on a read-only file system
    fill(folder, tmp_path / "log")
    assert not (tmp_path / "log").exists()
    assert sorted(folder.iterdir()) == before
    next(folder.glob("shard-*")).unlink()
    with pytest.raises(UserError, match="is read-only here and lacks at least 5 items of this data; give"):
        fill(folder, tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("mode", [0o2775, 0o755])
def test_the_group_may_write_what_is_created_in_a_shared_folder(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(mode)
    before = os.umask(0o022)
    try:
        fill(root / "stores" / "store", tmp_path / "log")
    finally:
        os.umask(before)
    shared = bool(mode & stat.S_IWGRP)
    created = [root / "stores", *(root / "stores").rglob("*")]
    assert len(created) == 2 + 1 + 8
    for path in created:
        found = path.stat().st_mode
        assert bool(found & stat.S_IWGRP) is shared, path
        assert bool(found & stat.S_ISGID) is (shared and path.is_dir()), path
        assert found & 0o004
        assert not found & 0o002


def test_waiting_stops_when_the_other_process_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    claim = foreign_claim(folder, list(ITEMS))

    def sleep(seconds: float) -> None:
        if claim.exists():
            moved = claim.rename(tmp_path / claim.name)
            monkeypatch.undo()
            fill(folder, tmp_path / "other")
            assert moved.exists()

    monkeypatch.setattr(filling.time, "sleep", sleep)
    fill(folder, tmp_path / "log")
    assert not (tmp_path / "log").exists()
    catalogue = Catalogue(folder)
    catalogue.refresh()
    assert catalogue.has(as_keys(list(ITEMS))).all()
