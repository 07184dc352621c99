"""The gallery has every explainer, and its pictures show what the current code and the shipped model give."""

from __future__ import annotations

import pytest
import torch
import write_gallery
from omegaconf import OmegaConf
from PIL import Image
from public import PROJECT
from readme_pictures.stamp import Stamp, read_stamp, settled
from readme_pictures.subject import config_of, load_subject

NAMES = sorted(
    path.stem
    for path in (PROJECT / "configs" / "explainer").glob("*.yaml")
    if "_target_" in (OmegaConf.load(path) or {})
)


def test_every_explainer_has_a_picture_and_a_text() -> None:
    assert len(NAMES) > 15
    assert sorted(path.stem for path in write_gallery.FOLDER.glob("*.png")) == NAMES
    assert sorted(OmegaConf.load(write_gallery.DOCS / "gallery.yaml")) == NAMES
    page = write_gallery.PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if page.count(f"gallery/{name}.png") != 1 or f"\n| `{name}` |" not in page] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_small(name: str) -> None:
    path = write_gallery.FOLDER / f"{name}.png"
    assert path.stat().st_size < 30_000
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.slow
def test_the_gallery_is_current(tmp_path_factory: pytest.TempPathFactory) -> None:
    threads = torch.get_num_threads()
    gallery = write_gallery.load_gallery(load_subject(config_of(f"paths.root={tmp_path_factory.mktemp('gallery')}")))
    torch.set_num_threads(threads)
    assert write_gallery.page_of(gallery) == write_gallery.PAGE.read_text("utf-8"), "run python docs/write_gallery.py"
    for shown in gallery.sample.explanations:
        old, found = read_stamp(write_gallery.FOLDER / f"{shown.explainer}.png")
        new = write_gallery.stamp_of(gallery, shown)
        assert old.hash == found
        assert Stamp(new.config, settled(new.scores, old.scores)).hash == old.hash, f"{shown.explainer} is old"
