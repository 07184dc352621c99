"""Which settings are part of the identity of a perturbation run, and which images are read for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_keys import changed, leaves
from ranks import in_ranks
from tiny_runs import composed
from watching import watched

from clipmapper.cli import typed
from clipmapper.data.images import EncodedImage, FileImage
from clipmapper.errors import UserError
from clipmapper.features import hashes
from clipmapper.training.identity import check_same
from perturbation.config import PerturbBaseConfig, PerturbCaptionsConfig, PerturbConfig, PerturbModelConfig
from perturbation.perturb.identity import IMAGES, digest_of_images, identify, open_run
from perturbation.perturb.stored import read_identity


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the image files that are read."""
    monkeypatch.setattr(hashes, "SETTLED", 0)  # the files were written a moment ago
    names: list[str] = []
    with watched(FileImage, "read", lambda image: names.append(image.path.name)):
        yield names


@pytest.fixture
def images(tmp_path: Path) -> list[FileImage]:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(name.encode())
    return [FileImage(file) for file in sorted(folder.iterdir())]


def test_only_images_that_are_new_or_have_changed_are_read(
    images: list[FileImage], read: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    usual = digest_of_images(images, cache)
    assert sorted(read) == ["a.png", "b.png", "c.png"]
    read.clear()
    assert digest_of_images(images, cache) == usual
    assert read == []
    before = images[1].path.stat()
    images[1].path.write_bytes(b"B.png")  # of the same size
    os.utime(images[1].path, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = digest_of_images(images, cache)
    assert read == ["b.png"]
    images[1].path.write_bytes(b"b.png")
    assert digest_of_images(images, cache) == usual
    assert len({usual, other, digest_of_images(images[::-1], cache), digest_of_images(images[:2], cache)}) == 4


def test_of_two_processes_one_reads_the_images(images: list[FileImage], read: list[str], tmp_path: Path) -> None:
    def work(rank: int) -> tuple[str, list[str]]:
        return digest_of_images(images, tmp_path / "cache"), read

    (first, of_first), (second, of_second) = in_ranks(tmp_path, work)
    assert first == second == digest_of_images(images, tmp_path / "cache")
    assert (sorted(of_first), of_second) == (["a.png", "b.png", "c.png"], [])


def test_a_copy_of_the_images_has_the_same_hash(images: list[FileImage], tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    copied = [FileImage(tmp_path / "copy" / image.path.name) for image in images]
    inside = [EncodedImage(f"row {k}", image.read) for k, image in enumerate(images)]
    found = {digest_of_images(some, tmp_path / "cache") for some in (images, copied, inside)}
    assert len(found) == 1


def test_no_image_counts_as_known_without_having_been_read(
    images: list[FileImage], read: list[str], tmp_path: Path
) -> None:
    """A missing image and one that is no file are looked at again at every start."""
    cache, seen = tmp_path / "cache", list[int]()
    inside = EncodedImage("row 1", lambda: seen.append(1) or b"b.png")  # type: ignore[func-returns-value]
    whole = digest_of_images(images, cache)
    images[0].path.unlink()
    read.clear()
    found = [digest_of_images([images[0], inside, images[2]], cache) for _ in range(2)]
    assert found[0] == found[1] != whole
    assert read == ["a.png", "a.png"]
    assert len(seen) == 2
    images[0].path.write_bytes(b"")
    assert digest_of_images([images[0], inside, images[2]], cache) not in (found[0], whole)


def test_without_a_cache_that_can_be_written_all_images_are_read(
    images: list[FileImage], read: list[str], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    found = [digest_of_images(images, tmp_path / "cache") for _ in range(2)]
    assert found[0] == found[1]
    assert len(read) == 2 * len(images)


# Sections and keys that may differ when a run is resumed. All others, also new ones, are part of the identity.
FREE = {"paths", "logger", "resume", "shard", "merge", "dry_run"}
FREE_KEYS = {
    *("data.root", "data.file", "data.workers", "data.answers_file"),  # the samples and images are compared
    *("checkpoint", "model.path", "model.weights", "encoder.weights"),  # the weights are compared
    *("encoder.batch_size", "encoder.feature_dtype", "task.steps", "task.validate_every"),  # not read
}
# What is read of these sections is part of the identity in another form.
ELSEWHERE = ("explainer", "controls", "measure", "trainer", "task.optim")
KINDS: tuple[tuple[type[PerturbBaseConfig], tuple[str, ...]], ...] = (
    (PerturbConfig, ("task=vqa",)),
    (PerturbCaptionsConfig, ("task=caption",)),
    *((PerturbConfig, ("task=vqa", f"data={name}")) for name in ("vqav2", "vqav2_hub", "easy_vqa")),
    (PerturbCaptionsConfig, ("task=caption", "data=coco")),
    (PerturbModelConfig, ("model=huggingface", "model.path=FOLDER", "data=table", "data.file=FILE")),
    (PerturbModelConfig, ("model=open_clip",)),
)


@pytest.mark.parametrize(("schema", "overrides"), KINDS)
def test_every_setting_is_part_of_the_identity(
    schema: type[PerturbBaseConfig], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    config = typed(composed("perturb", *overrides, f"paths.root={tmp_path}"), schema)
    usual = identify(config, {}, {}, {})
    for key in leaves(config):
        if key.startswith(ELSEWHERE):
            continue
        other = identify(changed(config, key), {}, {}, {})
        free = key.split(".")[0] in FREE or key in FREE_KEYS
        assert (other == usual) == free, key
        if not free:
            with pytest.raises(UserError, match=f"contains a run with {key}.*=.*, but this run has {key}="):
                check_same(tmp_path, usual, other)


@pytest.mark.parametrize("key", ["precision", "float32_matmul"])
def test_the_precision_is_part_of_the_identity(key: str, tmp_path: Path) -> None:
    config = typed(composed("perturb", f"paths.root={tmp_path}"), PerturbConfig)
    usual, other = (identify(each, {}, {}, {}) for each in (config, changed(config, f"trainer.{key}")))
    with pytest.raises(UserError, match=f"but this run has {key}=another value"):
        check_same(tmp_path, usual, other)


NOW: dict[str, Any] = {
    "config": {"seed": 0},
    "checkpoint": "ab",
    "samples": "s",
    IMAGES: "i",
    "versions": {"torch": "1"},
}


@pytest.mark.parametrize("key", ["encoder.batch_size", "encoder.weights", "data.root", "encoder.feature_dtype"])
def test_a_run_whose_identity_has_a_key_that_changes_no_number_is_continued(key: str, tmp_path: Path) -> None:
    """Those of earlier versions have them."""
    section, name = key.split(".")
    sections = {"data": {"name": "shapes"}, "encoder": {"model": "tiny"}}
    now = NOW | {"config": {**NOW["config"], **sections}}
    held = now | {"config": {**now["config"], section: {**sections[section], name: "earlier"}}}
    open_run(tmp_path, None, held)
    open_run(tmp_path, None, now)
    open_run(tmp_path, str(tmp_path), now)
    assert read_identity(tmp_path) == held
    with pytest.raises(UserError, match=r"encoder\.model=tiny, but"):
        open_run(tmp_path, None, now | {"config": {**now["config"], "encoder": {"model": "other"}}})
