"""VQA data in the columns of ``lmms-lab/VQAv2``, from the Hugging Face Hub or from local Parquet files.

That data set (splits validation, testdev and test, none for training) has VQAv2's fields plus ``image``, one row a
question: the encoded image is repeated for each question about it, and where there are no labels their cells are null.
``datasets`` keeps the rows in a memory-mapped Arrow file in its cache: images stay on the disk until they are opened.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmapper.data.images import BadImage, EncodedImage
from clipmapper.data.records import VQAData
from clipmapper.data.vqa_files import build_questions
from clipmapper.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

_TEXTS = ["question_id", "image_id", "question", "answers", "multiple_choice_answer", "answer_type", "question_type"]
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def read_hub(hub_id: str, split: str) -> VQAData:
    """Reads a split of a data set of the Hub, downloading it on the first use.

    Raises ``UserError`` where the Hub or the data set cannot be reached, the split or a column is missing, or a row is
    malformed (as ``read_vqa``).
    """
    if hub_id.endswith(".parquet") or not _HUB_ID.fullmatch(hub_id):
        raise UserError(f"{hub_id}: no such file or folder, and no hub id (owner/name); correct the path or the id")
    name = f"{hub_id} ({split})"
    return _to_vqa(_load(name, hub_id, split=split), name)


def read_parquet(path: Path, split: str) -> VQAData:
    """Reads a local Parquet file whole, or a split from a folder of them.

    A split's files are named as the Hub names them, ``validation-00000-of-00068.parquet``, or ``validation.parquet``.
    Raises ``UserError`` where a file is missing, unreadable or lacks a column, or a row is malformed (as ``read_vqa``).
    """
    name = f"{path} ({split})"
    files = [str(file) for file in _split_files(path, split)]
    return _to_vqa(_load(name, "parquet", data_files=files, split="train"), name)


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
    import datasets  # takes a second, and only this reader needs it

    try:
        return datasets.load_dataset(*args, **kwargs)
    except Exception as error:  # the network, the file system, Arrow and the builders have no common base
        generating = isinstance(error, datasets.exceptions.DatasetGenerationError)
        cause = error.__cause__ if generating and error.__cause__ else error
        reason = " ".join(str(cause).split())
        raise UserError(
            f"{name}: cannot be loaded ({reason:.300}); check the name, the files and the network"
        ) from error


def _to_vqa(dataset: Dataset, name: str) -> VQAData:
    missing = [column for column in [*_TEXTS, "image"] if column not in dataset.column_names]
    if missing:
        raise UserError(f"{name}: no column {', '.join(missing)}; rename or add it, with null cells where unlabelled")
    rows = dataset.select_columns(_TEXTS).to_list()
    labelled = any(row["answers"] for row in rows)
    questions = build_questions(rows, rows if labelled else None, name, name)
    encoded = _encoded_images(dataset, name)
    first_rows: dict[int, int] = {}
    for number, question in enumerate(questions):
        first_rows.setdefault(question.image_id, number)
    images = {image_id: _cell(encoded, row, f"{name}, row {row}") for image_id, row in first_rows.items()}
    return VQAData(questions, images)


def _encoded_images(dataset: Dataset, name: str) -> Dataset:
    from datasets import Image

    try:
        return dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f'{name}: the column "image" holds no images; store encoded images in it') from error


def _cell(dataset: Dataset, row: int, name: str) -> EncodedImage:
    # a partial can be pickled for the loader's workers, a closure cannot
    return EncodedImage(name, partial(_encoded_bytes, dataset, row, name))


def _encoded_bytes(dataset: Dataset, row: int, name: str) -> bytes:
    cell = dataset[row]["image"]
    if cell and cell["bytes"]:
        return cell["bytes"]
    raise BadImage(f"{name}: the image cell holds no bytes; store encoded images in the column")
