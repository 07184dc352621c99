"""Reader of VQA data with the columns of ``lmms-lab/VQAv2``, from the Hugging Face Hub or from local Parquet files.

That dataset has the splits validation, testdev and test, but no training split. Each row is a question with VQAv2's
fields and an additional column ``image``, so the encoded image is repeated for every question about it. The labels are
null in unlabelled splits. The package ``datasets`` stores the rows in a memory-mapped Arrow file in its cache, so
images stay on disk until they are opened.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from clipmapper.data.images import BadImage, EncodedImage
from clipmapper.data.records import VQAData
from clipmapper.data.vqa_files import build_questions
from clipmapper.errors import UserError
from clipmapper.files import check_regular

if TYPE_CHECKING:
    from datasets import Dataset

_TEXTS = ["question_id", "image_id", "question", "answers", "multiple_choice_answer", "answer_type", "question_type"]
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def read_hub(hub_id: str, split: str) -> VQAData:
    """Read a split of a dataset of the Hub, which is downloaded on first use.

    Raises:
        UserError: The Hub or the dataset cannot be reached, the split or a column is missing, or a row is malformed
            (see :func:`clipmapper.data.vqa_files.build_questions`).
    """
    if hub_id.endswith(".parquet") or not _HUB_ID.fullmatch(hub_id):
        raise UserError(f"{hub_id}: no such file or folder, and not a hub id (owner/name); correct the path or the id")
    name = f"{hub_id} ({split})"
    dataset = _load(name, hub_id, split=split)
    return _to_vqa(dataset, name, [(each["filename"], len(dataset)) for each in dataset.cache_files[:1]])


def read_parquet(path: Path, split: str) -> VQAData:
    """Read a local Parquet file, or a split from a folder of Parquet files.

    In a folder, the files of a split have the names that the Hub uses, such as ``validation-00000-of-00068.parquet``,
    or the name ``validation.parquet``. If ``path`` is a file, all its rows are read, whatever the split.

    Raises:
        UserError: A file is missing, unreadable or lacks a column, or a row is malformed (see
            :func:`clipmapper.data.vqa_files.build_questions`).
    """
    name = f"{path} ({split})"
    files = [str(file) for file in _split_files(path, split)]
    for file in files:
        check_regular(Path(file), "Parquet")
    dataset = _load(name, "parquet", data_files=files, split="train")
    return _to_vqa(dataset, name, [(file, pq.read_metadata(file).num_rows) for file in files])


def _split_files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; correct the path or put the Parquet files there")
    found = sorted(path.rglob("*.parquet"))
    files = [file for file in found if file.stem == split or file.name.startswith(f"{split}-")]
    if not files:
        there = ", ".join(file.name for file in found[:5]) or "none"
        raise UserError(f"{path}: no {split}-*.parquet in this folder (found: {there}); correct the path or the split")
    return files


def _load(name: str, *args: Any, **kwargs: Any) -> Dataset:
    import datasets  # the import takes a second and only this reader needs it

    try:
        return datasets.load_dataset(*args, **kwargs)
    except Exception as error:  # errors of the network, the files, Arrow and the builders have no common base class
        generating = isinstance(error, datasets.exceptions.DatasetGenerationError)
        cause = error.__cause__ if generating and error.__cause__ else error
        reason = " ".join(str(cause).split())
        raise UserError(
            f"{name}: cannot be loaded ({reason:.300}); check the name, the files and the network"
        ) from error


def _to_vqa(dataset: Dataset, name: str, files: Sequence[tuple[str, int]]) -> VQAData:
    """Return the rows of a dataset, of which the files hold so many each, as questions with their images."""
    missing = [column for column in [*_TEXTS, "image"] if column not in dataset.column_names]
    if missing:
        raise UserError(f"{name}: no column {', '.join(missing)}; rename or add it, with null cells where unlabelled")
    rows = dataset.select_columns(_TEXTS).to_list()
    labelled = any(row["answers"] for row in rows)
    questions = build_questions(rows, rows if labelled else None, name, name)
    encoded = _encoded_images(dataset, name)
    first_rows: dict[int, int] = {}
    for number, image_id in enumerate(questions.image_ids.tolist()):
        first_rows.setdefault(image_id, number)
    ends = list(accumulate(count for _, count in files))

    def cell(row: int) -> EncodedImage:
        file = bisect_right(ends, row)
        place = None if file == len(ends) else (files[file][0], str(row - ends[file] + files[file][1]))
        # The workers of the data loader need a picklable function: a partial is picklable, a closure is not.
        name_of_row = f"{name}, row {row}"
        return EncodedImage(name_of_row, partial(_encoded_bytes, encoded, row, name_of_row), place)

    images = {image_id: cell(row) for image_id, row in first_rows.items()}
    return VQAData(questions, images)


def _encoded_images(dataset: Dataset, name: str) -> Dataset:
    from datasets import Image

    try:
        return dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f'{name}: the column "image" holds no images; store encoded images in it') from error


def _encoded_bytes(dataset: Dataset, row: int, name: str) -> bytes:
    cell = dataset[row]["image"]
    if cell and cell["bytes"]:
        return cell["bytes"]
    raise BadImage(f"{name}: the image cell holds no bytes; store encoded images in the column")
