"""Caption files: COCO's caption JSON (cocodataset.org) and Karpathy's ``dataset_coco.json``.

The generated data set writes COCO's format and comes through the same reader. Captions are kept as they are in the
file; their number may differ from image to image (some of COCO's have six or seven).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipmapper.data.images import FileImage
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.files import read_field, read_json, read_text


@dataclass(frozen=True, slots=True)
class CaptionImage:
    """One image and its captions by people; there are none where nobody captioned it."""

    image_id: int
    captions: tuple[str, ...]
    image: ImageSource


@dataclass(frozen=True)
class CaptionData:
    """A split: its images in the file's order. ``source`` is how messages call it."""

    images: tuple[CaptionImage, ...]
    source: str

    @property
    def sources(self) -> Mapping[int, ImageSource]:
        """The images, by image id."""
        return {image.image_id: image.image for image in self.images}

    @property
    def captioned(self) -> tuple[CaptionImage, ...]:
        """What can be trained on: the images that have a caption."""
        return tuple(image for image in self.images if image.captions)

    @property
    def left_out(self) -> str:
        """One line that counts and names the images without a caption, empty where there are none."""
        alone = [image.image_id for image in self.images if not image.captions]
        return f"{self.source}: {_named(alone)} without a caption: left out of training" if alone else ""

    def references(self) -> dict[int, tuple[str, ...]]:
        """Every image's captions, by image id; raises ``UserError`` where an image has none to score against."""
        if alone := [image.image_id for image in self.images if not image.captions]:
            raise UserError(f"{self.source}: {_named(alone)} without a caption to score against; add one or remove it")
        return {image.image_id: image.captions for image in self.images}


def read_coco_captions(captions: Path, images: Path) -> CaptionData:
    """Reads ``{"images": [{id, file_name}], "annotations": [{image_id, id, caption}]}``; ``images`` is the folder.

    Images are not looked up on the disk until they are opened. Raises ``UserError`` where the file is missing or
    malformed, an entry lacks a field or has one of a wrong type, an id occurs twice, a caption is empty or about an
    unknown image, or there are no images.
    """
    content, source = read_json(captions), str(captions)
    files: dict[int, str] = {}
    for at, entry in _entries(content, "images", source):
        _add(files, read_field(entry, "id", int, at), read_field(entry, "file_name", str, at), at)
    texts: dict[int, list[str]] = {image_id: [] for image_id in files}
    seen: dict[int, str] = {}
    for at, entry in _entries(content, "annotations", source):
        image_id = read_field(entry, "image_id", int, at)
        if image_id not in texts:
            raise UserError(f'{at}: "image_id" {image_id} is none of the file\'s images; add the image or remove it')
        _add(seen, read_field(entry, "id", int, at), at, at)
        texts[image_id].append(read_text(entry, "caption", at))
    records = (CaptionImage(i, tuple(texts[i]), FileImage(images / name)) for i, name in files.items())
    return _checked(records, source)


def read_karpathy(path: Path, images: Path, split: str, restval_in_train: bool = True) -> CaptionData:
    """Reads one split (train, val, test, restval) of Karpathy's file; ``images`` is the folder above train2014.

    ``restval``, what of val2014 is neither val nor test, is part of ``train`` unless ``restval_in_train`` is false. Ids
    must be unique in the whole file: an image in two splits would leak. Raises ``UserError`` as ``read_coco_captions``
    does, and where the file has no such split.
    """
    content, source = read_json(path), str(path)
    wanted = {split, "restval"} if split == "train" and restval_in_train else {split}
    found: set[str] = set()
    places: dict[int, str] = {}
    sentences: dict[int, str] = {}
    records = []
    for at, entry in _entries(content, "images", source):
        image_id, part = read_field(entry, "cocoid", int, at), read_field(entry, "split", str, at)
        _add(places, image_id, at, at)
        captions = _karpathy_captions(entry, sentences, at)
        file = images / read_field(entry, "filepath", str, at) / read_field(entry, "filename", str, at)
        found.add(part)
        if part in wanted:
            records.append(CaptionImage(image_id, captions, FileImage(file)))
    if found and split not in found:
        raise UserError(f"{source}: has no split {split}; choose one of: {', '.join(sorted(found))}")
    return _checked(records, f"{source} ({split})")


def _karpathy_captions(entry: Mapping[str, Any], seen: dict[int, str], at: str) -> tuple[str, ...]:
    captions = []
    for where, sentence in _entries(entry, "sentences", at):
        _add(seen, read_field(sentence, "sentid", int, where), where, where)
        captions.append(read_text(sentence, "raw", where))
    return tuple(captions)


def _checked(records: Iterable[CaptionImage], source: str) -> CaptionData:
    data = CaptionData(tuple(records), source)
    if not data.images:
        raise UserError(f"{source}: holds no images; give a file with at least one")
    return data


def _entries(content: Any, name: str, source: str) -> Iterable[tuple[str, Any]]:
    """The entries of a list, each with its place for messages."""
    return ((f"{source}: {name}[{i}]", entry) for i, entry in enumerate(read_field(content, name, list, source)))


def _add(known: dict[int, str], key: int, value: str, at: str) -> None:
    if key in known:
        raise UserError(f"{at}: id {key} occurs twice; remove one of the two")
    known[key] = value


def _named(image_ids: list[int]) -> str:
    first = ", ".join(map(str, image_ids[:5])) + (", …" if len(image_ids) > 5 else "")
    return f"{len(image_ids)} image{'s' if len(image_ids) > 1 else ''} ({first})"
