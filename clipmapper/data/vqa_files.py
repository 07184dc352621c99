"""Reader of VQAv2's official files: question JSON, annotation JSON and image folder (visualqa.org/download.html).

The generated dataset and easy-VQA are written in the same format and read by the same functions.

The entries are checked one by one as they are joined, not by :mod:`clipmapper.storage.validation`, which returns copies
of what it checks. For VQAv2's 443,757 training questions and their answers, pydantic took 1.6 seconds and 1.1 GB of
copies, these checks 0.7 seconds and no copy; and they name the question instead of its place in the list.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clipmapper.console import progress
from clipmapper.data.images import FileImage
from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import ImageMap, Question, VQAData
from clipmapper.data.splitting import merge
from clipmapper.errors import UserError
from clipmapper.files import read_field, read_id, read_json, read_text
from clipmapper.storage.kept import kept


@dataclass(frozen=True)
class VQALayout:
    """File names of a dataset, relative to its root; the defaults are VQAv2's own names."""

    #: Name of the question file of a split.
    questions: str = "v2_OpenEnded_mscoco_{split}_questions.json"
    #: Name of the annotation file of a split.
    annotations: str = "v2_mscoco_{split}_annotations.json"
    #: Name of an image file; the folder may also be directly under the root, without the leading ``images/``.
    image: str = "images/{folder}/COCO_{folder}_{image_id:012d}.jpg"
    #: Splits that use the image folder of another split; for all others the folder has the name of the split.
    folders: Mapping[str, str] = field(default_factory=lambda: {"test-dev2015": "test2015"})
    #: Splits without an annotation file.
    unlabelled: Sequence[str] = ("test2015", "test-dev2015")


VQAV2 = VQALayout()


def read_vqav2(root: Path, splits: Sequence[str], layout: VQALayout = VQAV2, cache: Path | None = None) -> VQAData:
    """Read one or more splits of a dataset in VQAv2's folder layout and merge them.

    The image folder must exist, but an image file is not accessed before the image is opened.

    Args:
        root: The folder of the dataset.
        splits: Names of the splits.
        layout: File names of the dataset.
        cache: The folder ``paths.cache``, in which the joined questions are kept; None keeps nothing.

    Raises:
        UserError: A file or folder is missing or malformed (see :func:`read_questions`), or the splits cannot be merged
            (see :func:`clipmapper.data.splitting.merge`).
    """
    return merge(*(_read_split(root, split, layout, cache) for split in splits))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switch the garbage collector off: with millions of new dicts, its passes would take half of the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_vqa(
    questions: Path, annotations: Path | None, image_path: Callable[[int], Path | str], cache: Path | None = None
) -> VQAData:
    """Read the questions of a split with :func:`read_questions` and add its images.

    Args:
        questions: The question file.
        annotations: The annotation file; None for a split without labels.
        image_path: Function that returns the image file of an image id.
        cache: The folder ``paths.cache``, in which the joined questions are kept; None keeps nothing.
    """
    files = [path for path in (questions, annotations) if path is not None]
    table = kept(cache, "questions", files, lambda: _read_with_progress(questions, annotations).table)
    records = QuestionTable(table)
    ids = np.unique(records.image_ids)
    return VQAData(records, ImageMap(ids, np.zeros(len(ids), np.uint8), [partial(_image, image_path)]))


def _image(path: Callable[[int], Path | str], image_id: int) -> FileImage:
    return FileImage(path(image_id))


def _read_with_progress(questions: Path, annotations: Path | None) -> QuestionTable:
    with progress(None, f"reading {questions.name}"):
        return read_questions(questions, annotations)


@_no_garbage_collection()
def read_questions(questions: Path, annotations: Path | None) -> QuestionTable:
    """Read a question file and, if given, its annotation file.

    Raises:
        UserError: A file is missing or malformed, an entry lacks a field or has a field of the wrong type, an id occurs
            twice, a question is empty, or the two files do not contain the same questions.
    """
    entries = read_field(read_json(questions), "questions", list, f"{questions}")
    labels = None
    if annotations is not None:
        labels = read_field(read_json(annotations), "annotations", list, f"{annotations}")
    return build_questions(entries, labels, f"{questions}", f"{annotations}")


def build_questions(
    entries: Iterable[Any], labels: Iterable[Any] | None, source: str, label_source: str
) -> QuestionTable:
    """Check the entries of VQAv2's question and annotation lists, and join them by question id.

    Args:
        entries: Entries of the question list, whose order the result has.
        labels: Entries of the annotation list; None for a split without labels.
        source: Name of the question list in messages.
        label_source: Name of the annotation list in messages.

    Raises:
        UserError: An entry lacks a field or has a field of the wrong type, an id occurs twice, a question is empty, or
            the two lists do not contain the same questions.
    """
    questions = _by_question_id(entries, source)
    if labels is None:
        return QuestionTable.of(_question(id_, entry, source) for id_, entry in questions.items())
    annotations = _by_question_id(labels, label_source)
    check_same_questions(questions, annotations, source, label_source)
    return QuestionTable.of(
        _annotated(_question(id_, entry, source), annotations[id_], label_source) for id_, entry in questions.items()
    )


def check_same_questions(these: Collection[int], those: Collection[int], source: str, other: str) -> None:
    """Raise UserError if a question id of one file is not in the other."""
    for ids, others, here, there in ((these, those, source, other), (those, these, other, source)):
        if alone := [question_id for question_id in ids if question_id not in others]:
            raise UserError(
                f"{here}: question_id {alone[0]} is missing from {there} ({len(alone)} such in total);"
                " use files of the same split, and add or remove the questions without a partner"
            )


def _read_split(root: Path, split: str, layout: VQALayout, cache: Path | None) -> VQAData:
    files = VQAFiles.of(root, split, layout)
    return read_vqa(files.questions, files.annotations, files.image_path, cache)


@dataclass(frozen=True)
class VQAFiles:
    """The files of a split."""

    questions: Path
    annotations: Path | None  #: None for a split without labels
    image: str  #: path of an image, with fields for its folder and its id
    folder: str  #: folder of the images

    @classmethod
    def of(cls, root: Path, split: str, layout: VQALayout = VQAV2) -> VQAFiles:
        """Find the files of a split.

        Raises:
            UserError: The question file or the image folder is missing.
        """
        questions = root / layout.questions.format(split=split)
        if not questions.is_file():
            raise UserError(f"{questions}: no such file; {_splits_found(root, layout)}")
        annotations = None if split in layout.unlabelled else root / layout.annotations.format(split=split)
        folder = layout.folders.get(split, split)
        template = _image_template(root, folder, layout)
        return cls(questions, annotations, f"{str(root).replace('{', '{{').replace('}', '}}')}/{template}", folder)

    def image_path(self, image_id: int) -> str:
        """Return the path of an image."""
        return self.image.format(folder=self.folder, image_id=image_id)


def _splits_found(root: Path, layout: VQALayout) -> str:
    before, after = layout.questions.split("{split}")
    found = sorted(path.name[len(before) : -len(after)] for path in root.glob(f"{before}*{after}"))
    return f"choose one of the splits found there: {', '.join(found)}" if found else "put the dataset's files there"


def _image_template(root: Path, folder: str, layout: VQALayout) -> str:
    templates = (layout.image, layout.image.removeprefix("images/"))
    parents = [(root / template.format(folder=folder, image_id=0)).parent for template in templates]
    for template, parent in zip(templates, parents, strict=True):
        if parent.is_dir():
            return template
    raise UserError(f"{parents[0]}: no such folder, nor {parents[1]}; put the images of {folder} there")


def _by_question_id(entries: Iterable[Any], source: str) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for number, entry in enumerate(entries, start=1):
        question_id = read_id(entry, "question_id", f"{source}: entry {number}")
        if question_id in found:
            raise UserError(f"{source}: question_id {question_id} occurs twice (again in entry {number}); remove one")
        found[question_id] = entry
    return found


def _question(question_id: int, entry: Any, source: str) -> Question:
    at = f"{source}: question_id {question_id}"
    return Question(question_id, read_id(entry, "image_id", at), read_text(entry, "question", at))


def _annotated(question: Question, entry: Any, source: str) -> Question:
    at = f"{source}: question_id {question.question_id}"
    if entry.get("image_id", question.image_id) != question.image_id:
        raise UserError(
            f"{at} is about image {entry['image_id']!r}, in the question file about image"
            f" {question.image_id}; use two files of the same split"
        )
    answers = read_field(entry, "answers", list, at)
    if not answers:
        raise UserError(f"{at} has no answers; add them or remove the entry")
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("answer"), str):
            raise UserError(f'{at}: an answer is {answer!r:.60}, not {{"answer": text, …}}; correct it')
    return Question(
        question.question_id,
        question.image_id,
        question.question,
        tuple(answers),
        read_field(entry, "multiple_choice_answer", str, at),
        read_field(entry, "answer_type", str, at),
        read_field(entry, "question_type", str, at),
    )
