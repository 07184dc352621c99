"""Joining splits, and reserving a part of one for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from clipmapper.data.question_table import QuestionTable
from clipmapper.data.records import ImageMap, VQAData
from clipmapper.errors import UserError


def reserve(data: VQAData, count: int, seed: int) -> tuple[VQAData, VQAData]:
    """Split the data into a rest for training and ``count`` reserved questions for validation.

    All questions of an image are taken together, since an image in both parts would leak from training into the
    evaluation. The images are taken in an order that depends only on ``seed`` and the image ids, until they have at
    least ``count`` questions. If the last image has more questions than needed, its questions with the highest ids are
    in neither part. So the reserved part has exactly ``count`` questions, and the result does not depend on the order
    of the input.

    Returns:
        ``(rest, reserved)``, both sorted by question id.

    Raises:
        UserError: ``count`` is negative or greater than the number of questions.
    """
    questions = QuestionTable.of(data.questions)
    if not 0 <= count <= len(questions):
        total = len(questions)
        raise UserError(f"cannot reserve {count} of {total} questions; choose a count from 0 to {total}")
    ids, images, per_image = np.unique(questions.image_ids, return_inverse=True, return_counts=True)
    order = np.array(sorted(range(len(ids)), key=lambda k: _rank(seed, int(ids[k]))), np.int64)
    before = np.cumsum(per_image[order]) - per_image[order]  # reserved questions before each image is taken
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(order))
    taken = np.zeros(len(ids), bool)
    taken[order[before < count]] = True
    rows = np.lexsort((questions.ids, place[images]))  # image by image, in their order
    reserved = rows[taken[images[rows]]][:count]
    return _part(data, questions, np.flatnonzero(~taken[images])), _part(data, questions, reserved)


def merge(*parts: VQAData) -> VQAData:
    """Merge parts into one, with their questions in order (VQAv2 models are trained on train2014 and val2014 together).

    Raises:
        UserError: Two parts share a question id, or use one image id for different images.
    """
    questions = QuestionTable.joined(part.questions for part in parts)
    ids, first = np.unique(questions.ids, return_index=True)
    if len(ids) < len(questions):
        twice = np.setdiff1d(np.arange(len(questions)), first)[0]
        raise UserError(f"question_id {questions.ids[twice]} is in two splits; give splits without overlap")
    return VQAData(questions, _merged_images([ImageMap.of(part.images) for part in parts]))


def _merged_images(parts: Sequence[ImageMap]) -> ImageMap:
    ids, counts = np.unique(np.concatenate([part.ids for part in parts]), return_counts=True)
    for image_id in ids[counts > 1].tolist():
        known, *others = (part[image_id] for part in parts if image_id in part)
        for image in others:
            if image != known:
                raise UserError(f"image_id {image_id} is both {known.name} and {image.name}; give each its own id")
    return ImageMap.joined(parts)


def _rank(seed: int, image_id: int) -> bytes:
    """Return a hash to sort images by; new images or another Python version do not change the order of the others."""
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _part(data: VQAData, questions: QuestionTable, rows: np.ndarray) -> VQAData:
    chosen = questions.take(rows[np.argsort(questions.ids[rows], kind="stable")])
    return VQAData(chosen, ImageMap.of(data.images).only(chosen.image_ids))
