"""The files of a dataset that are downloaded by hand: where they belong, and their official addresses."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipmapper.config.data import CocoConfig, DataConfig, EasyVQAConfig, TableConfig, VQAv2Config
from clipmapper.data.caption_files import coco_file
from clipmapper.data.vqa_files import VQAV2

_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_{kind}_{part}_mscoco.zip"
_COCO = "http://images.cocodataset.org"
_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_PARTS = {"train2014": "Train", "val2014": "Val", "test2015": "Test", "test-dev2015": "Test"}  # of VQAv2's archives


@dataclass(frozen=True)
class Needed:
    """Something that a run needs from elsewhere."""

    what: str
    place: str  #: where it is, or where it must be put
    there: bool
    advice: str = ""  #: how to get it
    optional: bool = False  #: whether a run without it only has fewer results


def needed_files(config: DataConfig) -> list[Needed]:
    """Return the files of a dataset; none for a generated dataset, and for one that a library downloads."""
    root = Path(config.root)
    if isinstance(config, VQAv2Config):
        splits = [*config.train_splits, *([] if config.test_split is None else [config.test_split])]
        return [each for split in splits for each in _vqav2(root, split)]
    if isinstance(config, CocoConfig):
        return list(_coco(root, config))
    if isinstance(config, TableConfig):
        return [_file("table", Path(config.file), "your own file")]
    if isinstance(config, EasyVQAConfig):
        found = root.is_dir() or importlib.util.find_spec("easy_vqa") is not None
        return [Needed("dataset easy_vqa", str(root), found, 'pip install -e ".[easy-vqa]"')]
    return []


def _vqav2(root: Path, split: str) -> Iterable[Needed]:
    part = _PARTS.get(split, "")
    yield _file("questions", root / VQAV2.questions.format(split=split), _VQA.format(kind="Questions", part=part))
    if split not in VQAV2.unlabelled:
        where = root / VQAV2.annotations.format(split=split)
        yield _file("annotations", where, _VQA.format(kind="Annotations", part=part))
    folder = VQAV2.folders.get(split, split)
    yield _images([root / "images" / folder, root / folder], folder)


def _coco(root: Path, config: CocoConfig) -> Iterable[Needed]:
    images = root / config.images
    if config.karpathy is not None:
        yield _file("captions", root / config.karpathy, _KARPATHY)
        yield from (_images([images / folder], folder) for folder in ("train2014", "val2014"))
        return
    splits = [config.train_split, config.val_split, *([] if config.test_split is None else [config.test_split])]
    for split in splits:
        archive = "image_info_test2014" if split == "test2014" else "annotations_trainval2014"
        yield _file("captions", coco_file(config, split), f"{_COCO}/annotations/{archive}.zip")
        yield _images([images / split], split)


def _file(what: str, path: Path, address: str) -> Needed:
    return Needed(what, str(path), path.is_file(), address)


def _images(folders: list[Path], split: str) -> Needed:
    """Return the images of a split, which may be in one of several folders."""
    found = next((folder for folder in folders if folder.is_dir() and any(folder.iterdir())), None)
    return Needed("images", str(found or folders[0]), found is not None, f"{_COCO}/zips/{split}.zip")
