"""The samples of a dataset for any model: pairs of an image and a text, with people's answers if there are any."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clipmapper.config.data import DataConfig, TableConfig
from clipmapper.data.datasets import CAPTIONS, QUESTIONS, load_captions_of, load_questions_of
from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.data.records import ImageSource
from clipmapper.errors import UserError
from clipmapper.files import check_regular
from clipmapper.text import printable


@dataclass(frozen=True)
class Sample:
    """One sample, whose image is not read yet."""

    id: int
    image: ImageSource | None
    text: str | None
    answers: tuple[str, ...] | None = None  #: answers of people; None if they are not known
    kind: str = ""  #: type of the question, if the data names it
    image_id: int = 0  #: id of the image in the data


def load_samples(config: DataConfig, split: str, dual: bool) -> list[Sample]:
    """Read the samples of a split.

    A dual encoder reads captions, other models questions. Of data without captions, a dual encoder reads the questions;
    of data without questions, another model reads only the images.

    Args:
        config: The data.
        split: Name of the split; a table has only one, which every name stands for.
        dual: Whether the model is a dual encoder.

    Raises:
        UserError: The data cannot be read.
    """
    if isinstance(config, TableConfig):
        return read_table(Path(config.file))
    if config.name in CAPTIONS and (dual or config.name not in QUESTIONS):
        images = load_captions_of(config, split).captioned
        texts = [each.captions[0] if dual else None for each in images]
        return [Sample(each.image_id, each.image, text) for each, text in zip(images, texts, strict=True)]
    data = load_questions_of(config, split)
    return [
        Sample(
            each.question_id,
            data.images[each.image_id],
            each.question,
            tuple(str(answer["answer"]) for answer in each.answers) or None,
            each.question_type,
            each.image_id,
        )
        for each in data.questions
    ]


def readable(samples: Iterable[Sample], on_bad_image: str) -> Iterator[tuple[Sample, Image.Image | None]]:
    """Yield the samples with their images, which are read one by one.

    Args:
        samples: The samples.
        on_bad_image: ``skip`` leaves samples whose image cannot be read out, and reports them on stderr.

    Raises:
        BadImage: An image cannot be read, and ``on_bad_image`` is ``fail``.
    """
    for sample in samples:
        try:
            image = None if sample.image is None else load_rgb(sample.image)
        except BadImage as error:
            if on_bad_image == "fail":
                raise
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
            continue
        yield sample, image


def read_table(path: Path) -> list[Sample]:
    """Read a CSV file with a row for each sample, whose number is the sample's id.

    The columns are ``image`` (a path relative to the file), ``text``, or both. Columns whose names start with
    ``answer`` have people's answers; other columns are not read. Empty cells count as missing.

    Raises:
        UserError: The file is missing, not a table, has no row, neither an image nor a text column, or two columns with
            one name.
    """
    try:
        check_regular(path, "text")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            rows, names = list(reader), list(reader.fieldnames or ())
    except FileNotFoundError:
        raise UserError(f"data.file={path}: no such file; give a CSV file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"data.file={path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    except csv.Error as error:
        why = f"{error}; close every quote, and shorten longer cells"
        raise UserError(f"data.file={path}: cannot be read as CSV: {why}") from error
    except OSError as error:
        raise UserError(f"data.file={path}: cannot be read ({error.strerror}); give a CSV file") from error
    if not {"image", "text"} & set(names):
        raise UserError(f"data.file={path}: has the columns {', '.join(names)}; name one image, one text, or both")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.file={path}: two columns have the name {twice[0] or '(empty)'}; give each its own")
    if not rows:
        raise UserError(f"data.file={path}: has no rows; add one for each sample")
    if longer := [number for number, row in enumerate(rows) if None in row]:
        raise UserError(
            f"data.file={path}: row {longer[0] + 1} has too many cells; put quotes around texts with commas"
        )
    answers = [name for name in names if name.startswith("answer")]
    return [_sample(path, number, row, answers) for number, row in enumerate(rows)]


def _sample(path: Path, number: int, row: dict[str, str], answers: Sequence[str]) -> Sample:
    image, text = row.get("image", "").strip(), row.get("text", "").strip()
    if not image and not text:
        raise UserError(f"data.file={path}: row {number + 1} has neither an image nor a text; fill it in or remove it")
    known = tuple(row[name].strip() for name in answers if row[name].strip())
    return Sample(number, FileImage(path.parent / image) if image else None, text or None, known or None)
