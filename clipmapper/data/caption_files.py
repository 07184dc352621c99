"""Readers of caption files: COCO's caption JSON (cocodataset.org) and Karpathy's ``dataset_coco.json``.

The generated dataset is written in COCO's format and read by the same function. Captions are returned exactly as they
are in the file. Images may have different numbers of captions (some of COCO's images have six or seven).
The entries are checked one by one, for the reasons that :mod:`clipmapper.data.vqa_files` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from clipmapper.config.data import CocoConfig
from clipmapper.console import progress
from clipmapper.data.images import FileImage, image_in
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.files import read_field, read_id, read_json, read_text
from clipmapper.storage.kept import kept

Value = TypeVar("Value")
IMAGE_INFO = "image_info_"  #: start of the names of COCO's lists of images without captions
_SCHEMA = pa.schema(
    [("image_id", pa.int64()), ("name", pa.string()), ("split", pa.string()), ("captions", pa.list_(pa.string()))]
)


@dataclass(frozen=True, slots=True)
class CaptionImage:
    """An image and its human captions; ``captions`` is empty for an image without captions."""

    image_id: int
    captions: tuple[str, ...]
    image: ImageSource


@dataclass(frozen=True)
class CaptionData:
    """The images of a split with their captions, in the order of the file."""

    images: tuple[CaptionImage, ...]
    #: Name of the split in messages.
    source: str

    @property
    def sources(self) -> Mapping[int, ImageSource]:
        """The images by image id."""
        return {image.image_id: image.image for image in self.images}

    @property
    def captioned(self) -> tuple[CaptionImage, ...]:
        """The images that have a caption, which can be used for training."""
        return tuple(image for image in self.images if image.captions)

    @property
    def left_out(self) -> str:
        """One line with the number and ids of the images without a caption; empty if all have captions."""
        alone = [image.image_id for image in self.images if not image.captions]
        return f"{self.source}: {_count_and_ids(alone)} without a caption: left out of training" if alone else ""

    def references(self) -> dict[int, tuple[str, ...]]:
        """Return the captions of every image by image id.

        Raises:
            UserError: An image has no caption.
        """
        if alone := [image.image_id for image in self.images if not image.captions]:
            raise UserError(
                f"{self.source}: {_count_and_ids(alone)} without a caption to score against; add one or remove it"
            )
        return {image.image_id: image.captions for image in self.images}


def read_coco_captions(captions: Path, images: Path, cache: Path | None = None) -> CaptionData:
    """Read a caption file of COCO: ``{"images": [{id, file_name}], "annotations": [{image_id, id, caption}]}``.

    Args:
        captions: The caption file, or COCO's ``image_info_SPLIT.json`` of a test split, which has no annotations.
        images: The folder of the images. An image file is not accessed before the image is opened.
        cache: The folder ``paths.cache``, in which what was read is kept; None keeps nothing.

    Raises:
        UserError: The file is missing or malformed, an entry lacks a field or has a field of the wrong type, an id
            occurs twice, a caption is empty or belongs to an unknown image, or there are no images.
    """
    table = kept(cache, "captions", [captions], lambda: _coco_table(captions, images))
    return _nonempty_data(_records(table, images), str(captions))


def coco_file(config: CocoConfig, split: str) -> Path:
    """Return COCO's own file of a split: its captions or, of a test split, ``image_info_SPLIT.json`` in their place."""
    captions = Path(config.root, config.captions.replace("{split}", split))
    images = captions.with_name(f"{IMAGE_INFO}{split}.json")
    return images if images.is_file() and not captions.is_file() else captions


def _coco_table(captions: Path, images: Path) -> pa.Table:
    with progress(None, f"reading {captions.name}"):
        content, source = read_json(captions), str(captions)
    files: dict[int, str] = {}
    for at, entry in _entries(content, "images", source):
        image_id, name = read_id(entry, "id", at), read_field(entry, "file_name", str, at)
        image_in(images, name, f'{at}: "file_name"')  # checks the name
        _add_unique(files, image_id, name, at)
    texts: dict[int, list[str]] = {image_id: [] for image_id in files}
    if captions.name.startswith(IMAGE_INFO):
        return _table((i, name, "", []) for i, name in files.items())
    seen: dict[int, str] = {}
    for at, entry in _entries(content, "annotations", source):
        image_id = read_id(entry, "image_id", at)
        if image_id not in texts:
            raise UserError(
                f'{at}: "image_id" {image_id} is not in the file\'s images; add the image or remove the caption'
            )
        _add_unique(seen, read_id(entry, "id", at), at, at)
        texts[image_id].append(read_text(entry, "caption", at))
    return _table((i, name, "", texts[i]) for i, name in files.items())


def read_karpathy(
    path: Path, images: Path, split: str, restval_in_train: bool = True, cache: Path | None = None
) -> CaptionData:
    """Read one split of Karpathy's file.

    Args:
        path: Karpathy's ``dataset_coco.json``.
        images: The folder that contains ``train2014`` and ``val2014``.
        split: train, val, test or restval (the images of val2014 that are neither in val nor in test).
        restval_in_train: Whether restval is part of train.
        cache: The folder ``paths.cache``, in which what was read is kept; None keeps nothing.

    Raises:
        UserError: The file is missing or malformed (see :func:`read_coco_captions`), or has no such split. Ids must be
            unique in the whole file, since an image in two splits would leak from training into the evaluation.
    """
    table = kept(cache, "captions", [path], lambda: _karpathy_table(path, images))
    splits, source = table["split"], str(path)
    found = set(splits.unique().to_pylist())
    if found and split not in found:
        raise UserError(f"{source}: has no split {split}; choose one of: {', '.join(sorted(found))}")
    parts = {split, "restval"} if split == "train" and restval_in_train else {split}
    chosen = table.filter(pc.is_in(splits, pa.array(sorted(parts))))
    return _nonempty_data(_records(chosen, images), f"{source} ({split})")


def _karpathy_table(path: Path, images: Path) -> pa.Table:
    with progress(None, f"reading {path.name}"):
        content, source = read_json(path), str(path)
    places: dict[int, str] = {}
    sentences: dict[int, str] = {}
    records = []
    for at, entry in _entries(content, "images", source):
        image_id, part = read_id(entry, "cocoid", at), read_field(entry, "split", str, at)
        _add_unique(places, image_id, at, at)
        captions = _karpathy_captions(entry, sentences, at)
        name = PurePosixPath(read_field(entry, "filepath", str, at), read_field(entry, "filename", str, at))
        image_in(images, str(name), f'{at}: "filepath" and "filename"')  # checks the name
        records.append((image_id, str(name), part, captions))
    return _table(records)


def _table(records: Iterable[tuple[int, str, str, Sequence[str]]]) -> pa.Table:
    """Return the id, file name, split and captions of images in columns."""
    columns = list(zip(*records, strict=True)) or [()] * len(_SCHEMA)
    return pa.table(
        [pa.array(list(values), field.type) for values, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA
    )


def _records(table: pa.Table, images: Path) -> Iterator[CaptionImage]:
    columns = (table[name].to_pylist() for name in ("image_id", "name", "captions"))
    for image_id, name, captions in zip(*columns, strict=True):
        yield CaptionImage(image_id, tuple(captions), FileImage(images / name))


def _karpathy_captions(entry: Mapping[str, Any], seen: dict[int, str], at: str) -> tuple[str, ...]:
    captions = []
    for where, sentence in _entries(entry, "sentences", at):
        _add_unique(seen, read_id(sentence, "sentid", where), where, where)
        captions.append(read_text(sentence, "raw", where))
    return tuple(captions)


def _nonempty_data(records: Iterable[CaptionImage], source: str) -> CaptionData:
    data = CaptionData(tuple(records), source)
    if not data.images:
        raise UserError(f"{source}: holds no images; give a file with at least one")
    return data


def _entries(content: Any, name: str, source: str) -> Iterable[tuple[str, Any]]:
    """Return the entries of a list field, each with its place for messages."""
    return ((f"{source}: {name}[{i}]", entry) for i, entry in enumerate(read_field(content, name, list, source)))


def _add_unique(known: dict[int, Value], key: int, value: Value, at: str) -> None:
    if key in known:
        raise UserError(f"{at}: id {key} occurs twice; remove one of the two")
    known[key] = value


def _count_and_ids(image_ids: list[int]) -> str:
    first = ", ".join(map(str, image_ids[:5])) + (", …" if len(image_ids) > 5 else "")
    return f"{len(image_ids)} image{'s' if len(image_ids) > 1 else ''} ({first})"
