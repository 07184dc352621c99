"""Areas and gaps of models with a known closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perturbation.removal.order import kept_masks
from perturbation.removal.steps import STEP_LISTS
from perturbation.report.curves import area_under_mean, areas, direction_gaps

UNEVEN = (0.0, 0.01, 0.4, 0.45, 1.0)
STEPS = [*STEP_LISTS.values(), UNEVEN, (0.0, 1.0), (0.0, 0.2, 0.5)]
PROBABILITIES = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize("steps", STEPS)
def test_areas_equal_numpy(steps: tuple[float, ...]) -> None:
    curves = np.random.default_rng(0).random((3, 4, len(steps)))
    np.testing.assert_allclose(areas(curves, steps), 100 * np.trapezoid(curves, steps, axis=-1), rtol=1e-13)


@pytest.mark.parametrize("steps", [steps for steps in STEPS if steps[-1] == 1])
def test_closed_forms(steps: tuple[float, ...]) -> None:
    x = np.array(steps)
    assert areas(1 - x, steps) == pytest.approx(50)
    assert areas(np.full(len(x), 0.3), steps) == pytest.approx(30)
    # Only the point without removal is 1, so the area is half the width of the first step.
    assert areas((x == 0).astype(float), steps) == pytest.approx(50 * x[1])


def test_area_does_not_grow_with_the_number_of_steps() -> None:
    for count in (2, 5, 50):
        steps = np.linspace(0, 1, count)
        assert areas(1 - steps, steps.tolist()) == pytest.approx(50)


@settings(deadline=None)
@given(arrays(np.float64, (7, 9), elements=PROBABILITIES))
def test_area_of_the_mean_curve_is_the_mean_of_areas(curves: np.ndarray) -> None:
    steps = STEP_LISTS["paper"]
    area = area_under_mean(curves, steps)
    assert area == pytest.approx(100 * np.trapezoid(curves.mean(axis=0), steps))
    assert area == pytest.approx(areas(curves, steps).mean())
    assert -1e-9 <= area <= 100 + 1e-9


@settings(deadline=None)
@given(arrays(np.float64, (2, 5, 9), elements=PROBABILITIES))
def test_gap_is_negative_minus_positive(curves: np.ndarray) -> None:
    positive, negative = curves
    steps = STEP_LISTS["chefer"]
    expected = 100 * np.trapezoid(negative - positive, steps, axis=-1)
    np.testing.assert_allclose(direction_gaps(positive, negative, steps), expected, atol=1e-9)


def test_half_precision_curves_are_summed_in_double() -> None:
    curves = np.full((40_000, 2), 0.1, dtype=np.float16)
    assert area_under_mean(curves, (0.0, 1.0)) == pytest.approx(100 * float(np.float16(0.1)), rel=1e-12)


def all_orders_of_a_sum_model(values: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """Return the areas of all removal orders for a model whose output is the sum of the values of the kept tokens."""
    ranks = np.array(list(itertools.permutations(range(len(values)))), dtype=float)
    masks = kept_masks(ranks, np.ones(ranks.shape, dtype=bool), steps, "positive", ranks)
    return areas(masks @ values, steps)


def test_best_worst_and_random_order_of_a_sum_model() -> None:
    values = np.array([0.5, 0.25, 0.15, 0.1, 0.0])
    steps = tuple(np.linspace(0, 1, 6).tolist())
    every_order = all_orders_of_a_sum_model(values, steps)
    truth, removable = values[None], np.ones((1, 5), dtype=bool)
    best = areas(kept_masks(truth, removable, steps, "positive", truth) @ values, steps)
    worst = areas(kept_masks(truth, removable, steps, "negative", truth) @ values, steps)
    assert best == pytest.approx(every_order.min())
    assert worst == pytest.approx(every_order.max())
    # Computed by hand: removing 0.5, 0.25, 0.15, 0.1, 0 in this order gives the curve 1, .5, .25, .1, 0, 0.
    assert best == pytest.approx(20 * (0.5 + 0.5 + 0.25 + 0.1))
    # The mean curve of all orders is the line from 1 to 0, and so is the mean curve of an order and its reverse.
    assert every_order.mean() == pytest.approx(50)
    assert best + worst == pytest.approx(100)
    assert direction_gaps(
        kept_masks(truth, removable, steps, "positive", truth) @ values,
        kept_masks(truth, removable, steps, "negative", truth) @ values,
        steps,
    ) == pytest.approx(worst - best)


def test_refused_curves() -> None:
    steps = STEP_LISTS["paper"]
    with pytest.raises(ValueError, match="one value for each of the 9 steps"):
        areas(np.zeros((2, 8)), steps)
    with pytest.raises(ValueError, match="each of the 1 steps, and at least two steps"):
        areas(np.zeros((2, 1)), (0.0,))
    with pytest.raises(ValueError, match="at least one sample"):
        area_under_mean(np.zeros((0, 9)), steps)
    with pytest.raises(ValueError, match="differ in shape"):
        direction_gaps(np.zeros((2, 9)), np.zeros((1, 9)), steps)
    curves = np.zeros((3, 9))
    curves[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        areas(curves, steps)
