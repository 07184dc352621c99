"""VQAv2's official files: a question JSON, an annotation JSON and an image folder (visualqa.org/download.html).

The generated and the third-party data sets are written in the same format and come through the same reader.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipmapper.data.images import FileImage
from clipmapper.data.records import Question, VQAData, merge
from clipmapper.errors import UserError
from clipmapper.files import read_field, read_json, read_text


@dataclass(frozen=True)
class VQALayout:
    """How the files of a data set are called, relative to its root; the defaults are VQAv2's own names.

    ``image`` may also lie directly under the root, without the leading ``images/``. Its folder is the split's name, but
    for the splits in ``folders``, which use another one's images. ``unlabelled`` splits have no annotation file.
    """

    questions: str = "v2_OpenEnded_mscoco_{split}_questions.json"
    annotations: str = "v2_mscoco_{split}_annotations.json"
    image: str = "images/{folder}/COCO_{folder}_{image_id:012d}.jpg"
    folders: Mapping[str, str] = field(default_factory=lambda: {"test-dev2015": "test2015"})
    unlabelled: Sequence[str] = ("test2015", "test-dev2015")


VQAV2 = VQALayout()


def read_vqav2(root: Path, splits: Sequence[str], layout: VQALayout = VQAV2) -> VQAData:
    """Reads one or more splits of a data set in VQAv2's folder layout and merges them.

    Images are not looked up on the disk until they are opened, except that their folder must exist. Raises
    ``UserError`` where a file or folder is missing, and as ``read_questions`` and ``merge`` do.
    """
    return merge(*(_read_split(root, split, layout) for split in splits))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of new dicts and no garbage: the collector's passes would take half of the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_vqa(questions: Path, annotations: Path | None, image_path: Callable[[int], Path]) -> VQAData:
    """Reads a split as ``read_questions`` does; ``image_path`` gives an image id's file."""
    records = read_questions(questions, annotations)
    image_ids = dict.fromkeys(record.image_id for record in records)
    return VQAData(records, {image_id: FileImage(image_path(image_id)) for image_id in image_ids})


@_no_garbage_collection()
def read_questions(questions: Path, annotations: Path | None) -> tuple[Question, ...]:
    """Reads a question file and, where there is one, its annotation file.

    Raises ``UserError`` where a file is missing or malformed, an entry lacks a field or has one of a wrong type, an id
    occurs twice, a question is empty, or the two files are not about the same questions.
    """
    entries = read_field(read_json(questions), "questions", list, f"{questions}")
    labels = None
    if annotations is not None:
        labels = read_field(read_json(annotations), "annotations", list, f"{annotations}")
    return build_questions(entries, labels, f"{questions}", f"{annotations}")


def build_questions(
    entries: Iterable[Any], labels: Iterable[Any] | None, source: str, label_source: str
) -> tuple[Question, ...]:
    """Checks entries of VQAv2's question and annotation lists and joins them by question id, in the questions' order.

    ``source`` and ``label_source`` name the two lists in messages. Raises ``UserError`` as ``read_questions`` does.
    """
    questions = _by_question_id(entries, source)
    if labels is None:
        return tuple(_question(id_, entry, source) for id_, entry in questions.items())
    annotations = _by_question_id(labels, label_source)
    check_same_questions(questions, annotations, source, label_source)
    return tuple(
        _annotated(_question(id_, entry, source), annotations[id_], label_source) for id_, entry in questions.items()
    )


def check_same_questions(these: Collection[int], those: Collection[int], source: str, other: str) -> None:
    """Raises ``UserError`` where a question id of one file is not in the other."""
    for ids, others, here, there in ((these, those, source, other), (those, these, other, source)):
        if alone := [question_id for question_id in ids if question_id not in others]:
            raise UserError(
                f"{here}: question_id {alone[0]} is missing from {there} ({len(alone)} such in all);"
                " use files of the same split, and add or remove what has no partner"
            )


def _read_split(root: Path, split: str, layout: VQALayout) -> VQAData:
    questions = root / layout.questions.format(split=split)
    if not questions.is_file():
        raise UserError(f"{questions}: no such file; {_splits_found(root, layout)}")
    annotations = None if split in layout.unlabelled else root / layout.annotations.format(split=split)
    folder = layout.folders.get(split, split)
    template = _image_template(root, folder, layout)
    return read_vqa(questions, annotations, lambda image_id: root / template.format(folder=folder, image_id=image_id))


def _splits_found(root: Path, layout: VQALayout) -> str:
    before, after = layout.questions.split("{split}")
    found = sorted(path.name[len(before) : -len(after)] for path in root.glob(f"{before}*{after}"))
    return f"choose one of the splits found there: {', '.join(found)}" if found else "put the data set's files there"


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
        question_id = read_field(entry, "question_id", int, f"{source}: entry {number}")
        if question_id in found:
            raise UserError(f"{source}: question_id {question_id} occurs twice (again in entry {number}); remove one")
        found[question_id] = entry
    return found


def _question(question_id: int, entry: Any, source: str) -> Question:
    at = f"{source}: question_id {question_id}"
    return Question(question_id, read_field(entry, "image_id", int, at), read_text(entry, "question", at))


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
