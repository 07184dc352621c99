"""The order of removal, and the masks of the kept tokens."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipmapper.errors import UserError
from perturbation.removal.order import Direction, check_scores, kept_masks, removal_order
from perturbation.removal.steps import STEP_LISTS, removed_count

DIRECTIONS: tuple[Direction, ...] = ("positive", "negative")


@st.composite
def batches(draw: st.DrawFn, distinct: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores and removable [B, n]; there are few values, so ties are common, unless ``distinct`` is given."""
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 12)))
    removable = draw(arrays(np.bool_, shape))
    if distinct:
        return np.array([draw(st.permutations(range(shape[1]))) for _ in range(shape[0])], dtype=float), removable
    return draw(arrays(np.float64, shape, elements=st.integers(-2, 2).map(float))), removable


def slow_order(scores: np.ndarray, removable: np.ndarray, direction: str) -> list[int]:
    sign = -1 if direction == "positive" else 1
    tokens = [token for token in range(len(scores)) if removable[token]]
    return sorted(tokens, key=lambda token: (sign * scores[token], token))


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(deadline=None)
@given(batch=batches())
def test_order_equals_a_plain_sort(direction: Direction, batch: tuple[np.ndarray, np.ndarray]) -> None:
    scores, removable = batch
    for sample, order in enumerate(removal_order(scores, removable, direction)):
        expected = slow_order(scores[sample], removable[sample], direction)
        kept = [token for token in range(scores.shape[1]) if not removable[sample, token]]
        assert order.tolist() == expected + kept


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", STEP_LISTS)
@settings(deadline=None)
@given(batch=batches())
def test_masks_remove_the_first_tokens_of_the_order(
    name: str, direction: Direction, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, removable = batch
    masks = kept_masks(scores, removable, STEP_LISTS[name], direction)
    assert masks.shape == (len(scores), len(STEP_LISTS[name]), scores.shape[1])
    assert masks.dtype == np.bool_
    for sample in range(len(scores)):
        order = slow_order(scores[sample], removable[sample], direction)
        for index, step in enumerate(STEP_LISTS[name]):
            removed = len(order) - math.floor((1 - Fraction(str(step))) * len(order))
            assert set(np.flatnonzero(~masks[sample, index])) == set(order[:removed])


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(deadline=None)
@given(batch=batches())
def test_masks_are_nested_and_the_last_keeps_only_tokens_that_are_not_removable(
    direction: Direction, batch: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, removable = batch
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], direction)
    assert masks[:, 0].all()
    assert (masks[:, 1:] <= masks[:, :-1]).all()
    np.testing.assert_array_equal(masks[:, -1], ~removable)


@settings(deadline=None)
@given(batch=batches(distinct=True), percent=st.integers(0, 100))
def test_directions_complement_each_other_without_ties(batch: tuple[np.ndarray, np.ndarray], percent: int) -> None:
    """The n − k tokens that stay when the k highest are removed are the n − k lowest."""
    scores, removable = batch
    steps = (percent / 100, (100 - percent) / 100)
    positive = kept_masks(scores, removable, steps[:1], "positive")[:, 0]
    negative = kept_masks(scores, removable, steps[1:], "negative")[:, 0]
    for sample, n in enumerate(removable.sum(axis=1).tolist()):
        removed_twice = (~positive & ~negative)[sample].sum()
        # Both counts round up, so they overlap by one token unless percent·n is whole.
        assert removed_twice == removed_count(n, steps[0]) + removed_count(n, steps[1]) - n == (percent * n % 100 > 0)
        assert not ((positive & negative)[sample] & removable[sample]).any()


@settings(deadline=None)
@given(batch=batches(), data=st.data())
def test_a_sample_does_not_depend_on_its_batch(batch: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    scores, removable = batch
    shuffle = np.array(data.draw(st.permutations(range(len(scores)))))
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], "positive")
    np.testing.assert_array_equal(
        kept_masks(scores[shuffle], removable[shuffle], STEP_LISTS["paper"], "positive"), masks[shuffle]
    )
    alone = kept_masks(scores[:1], removable[:1], STEP_LISTS["paper"], "positive")
    np.testing.assert_array_equal(alone, masks[:1])


@settings(deadline=None)
@given(batch=batches(), padding=st.integers(1, 6), filler=st.sampled_from([0.0, 9.0, -9.0, np.nan, np.inf, -np.inf]))
def test_padding_changes_nothing_for_any_score(
    batch: tuple[np.ndarray, np.ndarray], padding: int, filler: float
) -> None:
    scores, removable = batch
    n = scores.shape[1]
    wide = np.pad(scores, ((0, 0), (0, padding)), constant_values=filler)
    wide_removable = np.pad(removable, ((0, 0), (0, padding)), constant_values=False)
    for direction in DIRECTIONS:
        masks = kept_masks(wide, wide_removable, STEP_LISTS["chefer"], direction)
        np.testing.assert_array_equal(masks[..., :n], kept_masks(scores, removable, STEP_LISTS["chefer"], direction))
        assert masks[..., n:].all()


def test_ties_are_ordered_by_position_in_both_directions() -> None:
    scores = np.array([[1.0, 0.0, 1.0, 0.0, -0.0]])
    removable = np.ones((1, 5), dtype=bool)
    assert removal_order(scores, removable, "positive").tolist() == [[0, 2, 1, 3, 4]]
    assert removal_order(scores, removable, "negative").tolist() == [[1, 3, 4, 0, 2]]


def test_many_ties_stay_in_order() -> None:
    """There are enough ties for an unstable sort to fail."""
    scores = np.repeat(np.array([[1.0, 0.0]]), 300, axis=1)
    order = removal_order(scores, np.ones_like(scores, dtype=bool), "positive")[0]
    np.testing.assert_array_equal(order, np.arange(600))


def test_class_token_is_kept_although_it_scores_highest() -> None:
    scores = np.array([[99.0, 1.0, 3.0, 2.0, 0.0]])
    removable = np.array([[False, True, True, True, True]])
    masks = kept_masks(scores, removable, (0.0, 0.25, 0.5, 1.0), "positive")
    assert masks[0].astype(int).tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]]


def test_a_sample_without_removable_tokens_keeps_everything_next_to_other_samples() -> None:
    scores = np.random.default_rng(0).random((3, 6))
    removable = np.ones((3, 6), dtype=bool)
    removable[1] = False
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], "negative")
    assert masks[1].all()
    assert not masks[[0, 2], -1].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int64])
def test_scores_may_have_any_number_type(dtype: type) -> None:
    scores: np.ndarray = np.array([[2, 0, 3]], dtype=dtype)
    assert removal_order(scores, np.ones((1, 3), dtype=bool), "positive").tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_sample(broken: float) -> None:
    scores = np.zeros((4, 5))
    scores[2, 3] = broken
    removable = np.ones((4, 5), dtype=bool)
    with pytest.raises(UserError, match="token 3 of sample 2"):
        kept_masks(scores, removable, STEP_LISTS["paper"], "positive")
    removable[2, 3] = False
    kept_masks(scores, removable, STEP_LISTS["paper"], "positive")


def test_unknown_direction_and_wrong_arrays_are_refused() -> None:
    scores = np.zeros((2, 3))
    with pytest.raises(UserError, match="choose positive or negative"):
        removal_order(scores, scores == 0, "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        check_scores(scores, np.ones((3, 2), dtype=bool))
    with pytest.raises(ValueError, match=r"\[B, n\]"):
        check_scores(scores[0], scores[0] == 0)
    with pytest.raises(ValueError, match="boolean"):
        check_scores(scores, np.ones((2, 3), dtype=int))
