"""The questions for training and validation, which are kept as they are after splits were merged and some reserved.

A second start maps them into memory, where all processes of a machine share them, instead of copying columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as once
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipmapper.data.images import FileImage
from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import ImageMap, VQAData
from clipmapper.data.vqa_files import VQAFiles
from clipmapper.storage.kept import kept


def kept_parts(
    splits: Sequence[VQAFiles], read: Callable[[], tuple[VQAData, VQAData]], settings: str, cache: Path | None
) -> tuple[VQAData, VQAData]:
    """Return the questions for training and validation.

    Args:
        splits: The files of all splits that ``read`` reads.
        read: Reads, merges and splits them.
        settings: What ``read`` depends on beside the files.
        cache: The folder ``paths.cache``; None keeps nothing.
    """
    if cache is None:
        return read()
    files = [path for split in splits for path in (split.questions, split.annotations) if path is not None]
    parts = once(read)

    def table(number: int) -> pa.Table:
        return QuestionTable.of(parts()[number].questions).table

    train = QuestionTable(kept(cache, "train", files, partial(table, 0), settings))
    val = QuestionTable(kept(cache, "val", files, partial(table, 1), settings))
    owners = kept(cache, "images", files, lambda: _owners(splits, parts()), settings)
    sources = [partial(_image, split) for split in splits]
    images = ImageMap(owners["image_id"].to_numpy(), owners["split"].to_numpy(), sources)
    return VQAData(train, images.only(train.image_ids)), VQAData(val, images.only(val.image_ids))


def _image(split: VQAFiles, image_id: int) -> FileImage:
    return FileImage(split.image_path(image_id))


def _owners(splits: Sequence[VQAFiles], parts: Sequence[VQAData]) -> pa.Table:
    """Return the number of the split of every image, by the path of its file."""
    images = ImageMap.joined(part.images for part in parts)
    places = {str(Path(split.image_path(0)).parent): number for number, split in enumerate(splits)}
    found = [places[str(image.path.parent)] for image in images.values() if isinstance(image, FileImage)]
    return pa.table({"image_id": images.ids, "split": np.array(found, np.uint8)})
