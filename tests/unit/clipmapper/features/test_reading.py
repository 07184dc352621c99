"""Several processes read each image once in all, to hash and to encode it, and the end of one stops no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from ranks import in_ranks

from clipmapper.config.schema import EncoderConfig
from clipmapper.data.images import FileImage
from clipmapper.encoder.load import FrozenClip
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded
from clipmapper.errors import UserError
from clipmapper.features import filling, hashes, images
from clipmapper.features.hashes import Hashes
from clipmapper.features.images import image_features
from clipmapper.features.store import FrozenFeatures
from clipmapper.process.together import check_agreed

FORK = multiprocessing.get_context("fork")
COUNT = 24
Read = Callable[[FileImage], bytes]


@pytest.fixture(scope="module")
def encoder() -> FrozenClip:
    register_embedded()
    torch.manual_seed(0)
    return FrozenClip.of(open_clip.create_model(EMBEDDED_MODEL), EMBEDDED_MODEL)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, FileImage]:
    """Write different images; each process reads four before it encodes them, two at a time."""
    monkeypatch.setattr(images, "WINDOW", 4)
    monkeypatch.setattr(hashes, "SETTLED", 0)  # the files were written a moment ago
    monkeypatch.setattr(filling, "_WAIT", (0.001, 0.01))
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    found = {}
    for i in range(COUNT):
        path = tmp_path / "pictures" / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
        found[i] = FileImage(path)
    return found


def features_of(encoder: FrozenClip, some: dict[int, FileImage], cache: Path, policy: str = "fail") -> FrozenFeatures:
    config = EncoderConfig(model=EMBEDDED_MODEL, weights="random", batch_size=2, feature_dtype="float32")
    return image_features(encoder, config, some, cache, policy, torch.device("cpu"))


def rows(features: FrozenFeatures) -> np.ndarray:
    found: np.ndarray = features.store.gather(np.arange(len(features.place))).features.numpy()
    return found


def log_reads(log: Path, pause: float = 0.0, instead: Callable[[FileImage, Read], bytes] | None = None) -> None:
    """Let this process log the number of every image that it reads, from now on."""
    whole = FileImage.read

    def read(image: FileImage) -> bytes:
        with log.open("a") as file:
            file.write(f"{image.path.stem}\n")
        time.sleep(pause)
        return whole(image) if instead is None else instead(image, whole)

    FileImage.read = read  # type: ignore[method-assign]


def wait_for(path: Path) -> bool:
    """Wait for a file, and return whether it came."""
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return path.exists()


def reads(folder: Path) -> list[Counter[int]]:
    """Return how often each process has read each image."""
    return [Counter(map(int, log.read_text().split())) for log in sorted(folder.glob("log-*"))]


def test_two_processes_read_each_image_once(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path
) -> None:
    alone = features_of(encoder, pictures, tmp_path / "alone")

    def work(rank: int) -> tuple[np.ndarray, str]:
        log_reads(tmp_path / f"log-{rank}", 0.002)
        found = features_of(encoder, pictures, tmp_path / "cache")
        check_agreed(lambda: {"images": found.content})
        return rows(found), found.content

    for found, content in in_ranks(tmp_path, work):
        np.testing.assert_array_equal(found, rows(alone))
        assert content == alone.content
    counts = reads(tmp_path)
    assert sum(counts, Counter()) == Counter(range(COUNT))
    assert len(counts) == 2
    assert not list((tmp_path / "cache").rglob(".claim*"))


def test_unreadable_images_are_skipped_by_all_processes(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path
) -> None:
    pictures[3].path.unlink()
    pictures[9].path.write_bytes(b"no image")

    def work(rank: int) -> tuple[list[int], int]:
        log_reads(tmp_path / f"log-{rank}", 0.002)
        found = features_of(encoder, pictures, tmp_path / "cache", "skip")
        return sorted(found.missing), len(rows(found))

    assert in_ranks(tmp_path, work) == [([3, 9], COUNT - 2)] * 2
    whole = sum(reads(tmp_path), Counter())
    assert {i: count for i, count in whole.items() if i not in (3, 9)} == dict.fromkeys(pictures.keys() - {3, 9}, 1)


@pytest.mark.parametrize("when", ["reading", "encoding"])
def test_an_error_in_one_process_does_not_stop_the_other(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path, when: str
) -> None:
    """It lives on, but claims nothing."""

    def gone(*_: object) -> None:
        if len((tmp_path / "log-1").read_text().split()) >= 7:
            raise UserError("the disk of this process is gone")

    def after(image: FileImage, whole: Read) -> bytes:
        wait_for(tmp_path / "failed")
        return whole(image)

    def broken(image: FileImage, whole: Read) -> bytes:
        wait_for(tmp_path / "log-0")  # the other process has read the index
        if when == "reading":
            gone()
        return whole(image)

    def work(rank: int) -> int:
        log_reads(tmp_path / f"log-{rank}", 0.002, broken if rank else after)
        if rank and when == "encoding":
            encoder.vision.register_forward_pre_hook(gone)
        try:
            count = len(rows(features_of(encoder, pictures, tmp_path / "cache", "skip")))
            (tmp_path / "done").touch()
        except UserError:
            (tmp_path / "failed").touch()
            return -wait_for(tmp_path / "done")
        return count

    assert in_ranks(tmp_path, work) == [COUNT, -1]


def test_the_end_of_a_process_loses_only_what_it_was_reading(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path
) -> None:
    def ends(image: FileImage, whole: Read) -> bytes:
        if len((tmp_path / "log-0").read_text().split()) >= 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(image)

    def work() -> None:
        log_reads(tmp_path / "log-0", 0.0, ends)
        features_of(encoder, pictures, tmp_path / "cache")

    killed = FORK.Process(target=work)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache" / "hashes").glob(".claim*"))
    other = FORK.Process(
        target=lambda: (log_reads(tmp_path / "log-1"), features_of(encoder, pictures, tmp_path / "cache"))
    )
    other.start()
    other.join(60)
    assert other.exitcode == 0
    assert reads(tmp_path)[1] == Counter(range(4, COUNT))
    assert not list((tmp_path / "cache").rglob(".claim*"))


def test_a_process_whose_files_are_others_reads_its_own(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path
) -> None:
    """Two machines with a disk each: the same paths, other inodes, and one other image."""

    def other_disk(image: FileImage, whole: Read) -> bytes:
        return whole(pictures[0] if image == pictures[5] else image)

    def work(rank: int) -> str:
        log_reads(tmp_path / f"log-{rank}", 0.002, other_disk if rank else None)
        if rank:
            stat = os.stat

            def moved(path: Any, *given: Any, **more: Any) -> os.stat_result:
                found = stat(path, *given, **more)
                if "pictures" not in str(path):
                    return found
                return os.stat_result((found.st_mode, found.st_ino + 1, *found[2:]), vars_of(found))

            hashes.os.stat = moved  # type: ignore[attr-defined]
        found = features_of(encoder, pictures, tmp_path / "cache")
        try:
            check_agreed(lambda: {"images": found.content})
        except UserError as error:
            return str(error)
        return ""

    (said,) = {*in_ranks(tmp_path, work)}
    assert " has other images than rank 0 on " in said
    assert all(set(count) == set(range(COUNT)) for count in reads(tmp_path))


def vars_of(found: os.stat_result) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns", "st_atime_ns")}


def test_without_an_index_each_process_reads_all(
    encoder: FrozenClip, pictures: dict[int, FileImage], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "hashes").touch()  # where its folder would be

    def work(rank: int) -> str:
        log_reads(tmp_path / f"log-{rank}")
        return features_of(encoder, pictures, tmp_path / "cache").content

    assert len({*in_ranks(tmp_path, work)}) == 1
    assert all(set(count) == set(range(COUNT)) for count in reads(tmp_path))


def test_another_job_is_waited_for_and_named(
    encoder: FrozenClip,
    pictures: dict[int, FileImage],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache"
    with Hashes(cache / "hashes").claimed({i: pictures[i] for i in (2, 3, 4)}) as others:
        assert others == {}
        claim = next((cache / "hashes").glob(".claim*"))
        before = claim.read_bytes()
        monkeypatch.setattr(filling.time, "sleep", lambda seconds: claim.unlink(missing_ok=True))
        found = features_of(encoder, pictures, cache)
    assert len(before) > 3 * 16
    assert len(found.place) == COUNT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for process {os.getpid()} on ")
    assert line.endswith(", which is reading 3 of the items")


def test_processes_that_save_at_the_same_time_lose_nothing(pictures: dict[int, FileImage], tmp_path: Path) -> None:
    load = Hashes._load

    def slow(index: Hashes, folder: Path) -> Any:
        found = load(index, folder)
        time.sleep(0.05)
        return found

    start = FORK.Barrier(4)

    def work(some: list[int]) -> None:
        Hashes._load = slow  # type: ignore[method-assign]
        index = Hashes(tmp_path / "hashes")
        for i in some:
            index.read(pictures[i])
        start.wait(60)
        index.save()

    savers = [FORK.Process(target=work, args=([*range(k, COUNT, 4)],)) for k in range(4)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(60)
    found = Hashes(tmp_path / "hashes")
    assert all(found.known(source) is not None for source in pictures.values())
