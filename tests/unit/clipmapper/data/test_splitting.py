"""Reserving and merging splits."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.data.images import FileImage
from clipmapper.data.records import Question, VQAData
from clipmapper.data.splitting import merge, reserve
from clipmapper.errors import UserError


def make(questions_of: dict[int, int], folder: str = "images") -> VQAData:
    questions = [Question(100 * i + k, i, f"what {k}?") for i, count in questions_of.items() for k in range(count)]
    return VQAData(tuple(questions), {i: FileImage(Path(folder) / f"{i}.jpg") for i in questions_of})


def ids(data: VQAData) -> list[int]:
    return [question.question_id for question in data.questions]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.integers(0, 99), st.integers(1, 7), min_size=1), st.integers(0, 2**32), st.data())
def test_reserved_and_remaining_questions_share_no_image(
    questions_of: dict[int, int], seed: int, draw: st.DataObject
) -> None:
    data = make(questions_of)
    count = draw.draw(st.integers(0, len(data.questions)))
    rest, reserved = reserve(data, count, seed)
    assert len(reserved.questions) == count
    assert not set(ids(rest)) & set(ids(reserved))
    assert not rest.images.keys() & reserved.images.keys()
    for part in (rest, reserved):
        assert ids(part) == sorted(ids(part))
        assert part.images.keys() == {question.image_id for question in part.questions}
    dropped = set(ids(data)) - set(ids(rest)) - set(ids(reserved))
    assert len(dropped) < max(questions_of.values())
    assert {question_id // 100 for question_id in dropped} <= reserved.images.keys()


def test_reserving_does_not_depend_on_the_order_of_the_questions() -> None:
    data = make({i: 1 + i % 4 for i in range(50)})
    questions = list(data.questions)
    Random(3).shuffle(questions)
    images = dict(sorted(data.images.items(), reverse=True))
    assert reserve(VQAData(tuple(questions), images), 20, 0) == reserve(data, 20, 0)


def test_a_seed_gives_the_same_part_and_another_seed_another_part() -> None:
    data = make(dict.fromkeys(range(50), 2))
    parts = [ids(reserve(data, 20, seed)[1]) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_more_images_do_not_change_the_order_of_the_others() -> None:
    few, many = make(dict.fromkeys(range(50), 1)), make(dict.fromkeys(range(55), 1))
    kept = set(ids(reserve(few, 20, 0)[1])) & set(ids(reserve(many, 20, 0)[1]))
    assert len(kept) >= 15


@pytest.mark.parametrize("count", [-1, 4])
def test_an_impossible_count_is_an_error(count: int) -> None:
    with pytest.raises(UserError, match=f"cannot reserve {count} of 3 questions"):
        reserve(make({1: 3}), count, 0)


def test_merging_keeps_all_questions_and_images() -> None:
    first, second = make({1: 2, 2: 1}), make({3: 2})
    both = merge(first, second)
    assert both.questions == first.questions + second.questions
    assert both.images == {**first.images, **second.images}


def test_a_question_in_two_parts_cannot_be_merged() -> None:
    data = make({1: 2})
    with pytest.raises(UserError, match="question_id 100 is in two splits"):
        merge(data, data)


def test_parts_with_one_image_id_for_two_images_cannot_be_merged() -> None:
    first, second = make({1: 1}), make({1: 1}, folder="others")
    other_questions = VQAData((Question(7, 1, "why?"),), second.images)
    with pytest.raises(UserError, match=r"image_id 1 is both images/1\.jpg and others/1\.jpg"):
        merge(first, other_questions)
