"""The order of removal, and the masks of the kept tokens."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from explain_traces import make_trace
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipmapper.errors import UserError
from explain.explainers import Random
from perturbation.removal.order import Direction, check_scores, draw_ties, kept_masks, removal_order
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


def ties_of(scores: np.ndarray, first: int = 0) -> np.ndarray:
    """Return the numbers that order equal scores; the ids of the samples count up from ``first``."""
    return draw_ties(0, range(first, first + len(scores)), "image", scores.shape[1])


def slow_order(scores: np.ndarray, removable: np.ndarray, ties: np.ndarray, direction: str) -> list[int]:
    sign = -1 if direction == "positive" else 1
    tokens = [token for token in range(len(scores)) if removable[token]]
    return sorted(tokens, key=lambda token: (sign * scores[token], ties[token]))


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(deadline=None)
@given(batch=batches())
def test_order_equals_a_plain_sort(direction: Direction, batch: tuple[np.ndarray, np.ndarray]) -> None:
    scores, removable = batch
    ties = ties_of(scores)
    for sample, order in enumerate(removal_order(scores, removable, direction, ties)):
        expected = slow_order(scores[sample], removable[sample], ties[sample], direction)
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
    ties = ties_of(scores)
    masks = kept_masks(scores, removable, STEP_LISTS[name], direction, ties)
    assert masks.shape == (len(scores), len(STEP_LISTS[name]), scores.shape[1])
    assert masks.dtype == np.bool_
    for sample in range(len(scores)):
        order = slow_order(scores[sample], removable[sample], ties[sample], direction)
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
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], direction, ties_of(scores))
    assert masks[:, 0].all()
    assert (masks[:, 1:] <= masks[:, :-1]).all()
    np.testing.assert_array_equal(masks[:, -1], ~removable)


@settings(deadline=None)
@given(batch=batches(distinct=True), percent=st.integers(0, 100))
def test_directions_complement_each_other_without_ties(batch: tuple[np.ndarray, np.ndarray], percent: int) -> None:
    """The n − k tokens that stay when the k highest are removed are the n − k lowest."""
    scores, removable = batch
    steps = (percent / 100, (100 - percent) / 100)
    positive = kept_masks(scores, removable, steps[:1], "positive", ties_of(scores))[:, 0]
    negative = kept_masks(scores, removable, steps[1:], "negative", ties_of(scores))[:, 0]
    for sample, n in enumerate(removable.sum(axis=1).tolist()):
        removed_twice = (~positive & ~negative)[sample].sum()
        # Both counts round up, so they overlap by one token unless percent·n is whole.
        assert removed_twice == removed_count(n, steps[0]) + removed_count(n, steps[1]) - n == (percent * n % 100 > 0)
        assert not ((positive & negative)[sample] & removable[sample]).any()


@settings(deadline=None)
@given(batch=batches(), data=st.data())
def test_a_sample_does_not_depend_on_its_batch(batch: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    scores, removable = batch
    shuffle = data.draw(st.permutations(range(len(scores))))
    ties = draw_ties(0, shuffle, "image", scores.shape[1])
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], "positive", ties_of(scores))
    shuffled = kept_masks(scores[shuffle], removable[shuffle], STEP_LISTS["paper"], "positive", ties)
    np.testing.assert_array_equal(shuffled, masks[shuffle])
    last = len(scores) - 1
    alone = kept_masks(
        scores[last:], removable[last:], STEP_LISTS["paper"], "positive", ties_of(scores[last:], first=last)
    )
    np.testing.assert_array_equal(alone, masks[last:])


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
        masks = kept_masks(wide, wide_removable, STEP_LISTS["chefer"], direction, ties_of(wide))
        narrow = kept_masks(scores, removable, STEP_LISTS["chefer"], direction, ties_of(scores))
        np.testing.assert_array_equal(masks[..., :n], narrow)
        assert masks[..., n:].all()


def test_ties_are_ordered_by_their_numbers_in_both_directions() -> None:
    scores, ties = np.array([[1.0, 0.0, 1.0, 0.0, -0.0]]), np.array([[0.9, 0.5, 0.2, 0.1, 0.8]])
    removable = np.ones((1, 5), dtype=bool)
    assert removal_order(scores, removable, "positive", ties).tolist() == [[2, 0, 3, 1, 4]]
    assert removal_order(scores, removable, "negative", ties).tolist() == [[3, 1, 4, 2, 0]]


@settings(deadline=None)
@given(batch=batches(distinct=True))
def test_scores_without_ties_are_ordered_as_by_a_stable_sort(batch: tuple[np.ndarray, np.ndarray]) -> None:
    scores, removable = batch
    for direction, sign in (("positive", -1), ("negative", 1)):
        expected = np.lexsort((sign * scores, ~removable))
        for sample, tokens in enumerate(removable.sum(1)):
            expected[sample, tokens:] = np.sort(expected[sample, tokens:])  # the others stay in order of position
        found = removal_order(scores, removable, direction, ties_of(scores))  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equal_scores_have_the_mean_curve_of_random_orders(direction: Direction) -> None:
    """The model is decided by its first token, so an order by position has an area of 0."""
    steps = tuple(np.linspace(0, 1, 9).tolist())
    scores = np.zeros((4000, 8))
    kept = kept_masks(scores, np.ones(scores.shape, dtype=bool), steps, direction, ties_of(scores))
    curve = kept[:, :, 0].mean(axis=0)
    np.testing.assert_allclose(curve, 1 - np.array(steps), atol=4 * 0.5 / 4000**0.5)
    by_position = kept_masks(scores[:1], np.ones((1, 8), dtype=bool), steps, direction, np.arange(8.0)[None])
    assert by_position[0, :, 0].tolist() == [True] + [False] * 8


def test_the_order_of_equal_scores_depends_on_seed_sample_and_modality() -> None:
    found = {(seed, name, m): draw_ties(seed, [name], m, 6) for seed in (0, 1) for name in (7, 8) for m in ("a", "b")}
    assert len({each.tobytes() for each in found.values()}) == 8
    np.testing.assert_array_equal(draw_ties(1, [8, 7], "b", 4)[1], found[1, 7, "b"][0, :4])


def test_equal_scores_are_not_ordered_like_the_random_control() -> None:
    scores = Random(seed=0)(make_trace("a"), rows=torch.zeros(3, dtype=torch.long)).numpy()
    ties = draw_ties(0, ["s0", "s1", "s2"], "image", 5)
    assert not np.isin(ties, scores).any()


def test_class_token_is_kept_although_it_scores_highest() -> None:
    scores = np.array([[99.0, 1.0, 3.0, 2.0, 0.0]])
    removable = np.array([[False, True, True, True, True]])
    masks = kept_masks(scores, removable, (0.0, 0.25, 0.5, 1.0), "positive", ties_of(scores))
    assert masks[0].astype(int).tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]]


def test_a_sample_without_removable_tokens_keeps_everything_next_to_other_samples() -> None:
    scores = np.random.default_rng(0).random((3, 6))
    removable = np.ones((3, 6), dtype=bool)
    removable[1] = False
    masks = kept_masks(scores, removable, STEP_LISTS["paper"], "negative", ties_of(scores))
    assert masks[1].all()
    assert not masks[[0, 2], -1].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int64])
def test_scores_may_have_any_number_type(dtype: type) -> None:
    scores: np.ndarray = np.array([[2, 0, 3]], dtype=dtype)
    assert removal_order(scores, np.ones((1, 3), dtype=bool), "positive", ties_of(scores)).tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_sample(broken: float) -> None:
    scores = np.zeros((4, 5))
    scores[2, 3] = broken
    removable = np.ones((4, 5), dtype=bool)
    with pytest.raises(UserError, match="token 3 of sample 2"):
        kept_masks(scores, removable, STEP_LISTS["paper"], "positive", ties_of(scores))
    removable[2, 3] = False
    kept_masks(scores, removable, STEP_LISTS["paper"], "positive", ties_of(scores))


def test_unknown_direction_and_wrong_arrays_are_refused() -> None:
    scores = np.zeros((2, 3))
    with pytest.raises(UserError, match="choose positive or negative"):
        removal_order(scores, scores == 0, "up", scores)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        check_scores(scores, np.ones((3, 2), dtype=bool))
    with pytest.raises(ValueError, match=r"\[B, n\]"):
        check_scores(scores[0], scores[0] == 0)
    with pytest.raises(ValueError, match="boolean"):
        check_scores(scores, np.ones((2, 3), dtype=int))
