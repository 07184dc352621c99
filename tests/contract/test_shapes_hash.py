"""``data=shapes`` writes the same data for the same seed: equal bytes of JSON, equal pixels of images and masks.

The bytes of an image depend on the zlib that Pillow was built with; its pixels do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from public import GOLDEN, golden

Command = Callable[..., tuple[int, str, list[str]]]

WRITE = (
    *("evaluate", f"checkpoint={GOLDEN / 'vqa-b.ckpt'}", "mapper.width=16", "mapper.heads=2", "mapper.layers=1"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "threads=1"),
    *("data.seed=3", "data.train_scenes=12", "data.val_scenes=5", "data.test_scenes=7", "data.workers=2"),
)


def hashes(data: Path) -> dict[str, str]:
    """Return hashes by file; all images of a folder have one common hash."""
    found = {}
    for path in sorted(data.rglob("*.json")):
        found[path.relative_to(data).as_posix()] = _hash(path.read_bytes())
    for folder in sorted({path.parent for path in data.rglob("*.png")}):
        digest = b""
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as image:
                digest += f"{path.name} {image.mode} {image.size}".encode() + image.tobytes()
        found[f"{folder.relative_to(data).as_posix()}/*.png"] = _hash(digest)
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def test_a_seed_gives_the_same_scenes(command: Command, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):  # a split is drawn when it is scored
        status, _, errors = command(*WRITE, f"split={split}", f"paths.root={tmp_path}")
        assert (status, errors) == (0, [])
    assert hashes(tmp_path / "cache" / "data") == golden("shapes")


def test_a_changed_pixel_is_detected(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    before = hashes(tmp_path)
    image = Image.new("RGB", (4, 4))
    image.putpixel((1, 2), (0, 0, 1))
    image.save(tmp_path / "a.png")
    assert hashes(tmp_path).keys() == before.keys()
    assert hashes(tmp_path) != before
