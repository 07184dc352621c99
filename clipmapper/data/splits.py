"""Cutting data into parts that share no image, putting parts together, and keeping a cut in a file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from clipmapper.data.json_files import read_json, write_json
from clipmapper.data.records import ImageSource, Question, VQAData
from clipmapper.errors import UserError


def reserve(data: VQAData, count: int, seed: int) -> tuple[VQAData, VQAData]:
    """Splits ``count`` questions off for validation: ``(rest, reserved)``, both sorted by question id.

    Whole images are taken, in an order that hangs on ``seed`` and the image ids alone, until they carry at least
    ``count`` questions; an image in both parts would leak from training into the evaluation. The last image taken
    may carry more questions than are needed: those with its highest ids are in neither part. So ``reserved`` has
    exactly ``count`` questions, and the result does not depend on the order of the input.

    Raises ``UserError`` where ``count`` is negative or more than there are.
    """
    if not 0 <= count <= len(data.questions):
        raise UserError(f"cannot reserve {count} of {len(data.questions)} questions; choose a count between the two")
    by_image: dict[int, list[Question]] = {}
    for question in sorted(data.questions, key=lambda question: question.question_id):
        by_image.setdefault(question.image_id, []).append(question)
    reserved: list[Question] = []
    for image_id in sorted(by_image, key=lambda image_id: _rank(seed, image_id)):
        if len(reserved) >= count:
            break
        reserved += by_image.pop(image_id)
    rest = [question for questions in by_image.values() for question in questions]
    return _part(rest, data.images), _part(reserved[:count], data.images)


def merge(*parts: VQAData) -> VQAData:
    """All questions of all parts, in their order (VQAv2's models are trained on train2014 and val2014 together).

    Raises ``UserError`` where two parts share a question id, or use one image id for different images.
    """
    questions: dict[int, Question] = {}
    images: dict[int, ImageSource] = {}
    for part in parts:
        for question in part.questions:
            if question.question_id in questions:
                raise UserError(f"question_id {question.question_id} is in two splits; give splits without overlap")
            questions[question.question_id] = question
        for image_id, image in part.images.items():
            if (first := images.setdefault(image_id, image)).name != image.name:
                raise UserError(f"image_id {image_id} is both {first.name} and {image.name}; give each its own id")
    return VQAData(tuple(questions.values()), images)


def write_split(path: Path, parts: Mapping[str, VQAData]) -> None:
    """Writes the question ids of each part as JSON, ``{"train": [1, 2, …], "val": […]}``; raises as ``write_json``."""
    write_json(path, {name: [question.question_id for question in part.questions] for name, part in parts.items()})


def read_split(path: Path, data: VQAData) -> dict[str, VQAData]:
    """The parts of ``data`` that ``write_split`` noted, each sorted by question id.

    Raises ``UserError`` where the file is missing or malformed, or names a question that ``data`` does not have, or
    names one twice.
    """
    noted = read_json(path)
    if not isinstance(noted, dict) or not all(isinstance(ids, list) for ids in noted.values()):
        raise UserError(f"{path}: not a split file; write it again or give one like {{'train': [ids], 'val': [ids]}}")
    questions = {question.question_id: question for question in data.questions}
    wanted = [question_id for ids in noted.values() for question_id in ids]
    if unknown := [id_ for id_ in wanted if not isinstance(id_, int) or id_ not in questions]:
        raise UserError(
            f"{path}: question_id {unknown[0]!r} is not in the data ({len(unknown)} such in all);"
            " use the split file with the data it was made of"
        )
    if len(set(wanted)) < len(wanted):
        twice = next(id_ for id_, count in Counter(wanted).items() if count > 1)
        raise UserError(f"{path}: question_id {twice} occurs twice; a question belongs to one part")
    return {name: _part((questions[question_id] for question_id in ids), data.images) for name, ids in noted.items()}


def _rank(seed: int, image_id: int) -> bytes:
    """A hash, not a random generator: new images do not reshuffle the others, nor does another Python."""
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _part(questions: Iterable[Question], images: Mapping[int, ImageSource]) -> VQAData:
    ordered = sorted(questions, key=lambda question: question.question_id)
    return VQAData(tuple(ordered), {question.image_id: images[question.image_id] for question in ordered})
