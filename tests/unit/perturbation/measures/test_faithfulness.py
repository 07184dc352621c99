"""The violation test, and the correlations of scores with the effects of single tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipmapper.errors import UserError
from perturbation.measures.faithfulness import pearson, spearman, strongest_tokens, violations
from perturbation.removal.order import draw_ties
from perturbation.report.rows import summarize

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
MEASURES: list[Measure] = [pearson, spearman]
FEW_VALUES = st.integers(-3, 3).map(float)
ALL = np.ones((1, 4), dtype=bool)


@pytest.fixture(scope="module")
def scipy_stats() -> ModuleType:
    return pytest.importorskip("scipy.stats")


def test_strongest_is_the_removable_token_with_the_largest_absolute_score() -> None:
    scores = np.array([[9.0, 1.0, -3.0, 2.0], [1.0, -2.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0], [9.0, 0.0, 0.0, 0.0]])
    removable = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]], dtype=bool)
    ties = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.9, 0.2, 0.3], [0.0] * 4, [0.0, 0.1, 0.7, 0.5]])
    assert strongest_tokens(scores, removable, ties).tolist() == [2, 2, -1, 3]
    assert strongest_tokens(scores, removable, -ties).tolist() == [2, 1, -1, 2]


@pytest.mark.parametrize(
    ("score", "without", "expected"),
    [(1.0, 0.2, 0), (1.0, 0.8, 1), (-1.0, 0.2, 1), (-1.0, 0.8, 0), (1.0, 0.5, 0), (0.0, 0.8, 0)],
)
def test_violation_by_sign(score: float, without: float, expected: int) -> None:
    scores, removable = np.array([[score, 0.0]]), np.array([[True, True]])
    result = violations(scores, removable, np.array([0.5]), np.array([without]), np.zeros((1, 2)))
    assert result.tolist() == [expected]


def test_violation_of_numbers_whose_product_underflows() -> None:
    scores, full, without = np.array([[1e-200]]), np.array([0.0]), np.array([1e-200])
    assert violations(scores, scores > 0, full, without, scores).tolist() == [1]


@settings(deadline=None)
@given(arrays(np.float64, (6, 4), elements=FEW_VALUES), arrays(np.bool_, (6, 4)), st.integers(0, 99))
def test_rate_equals_a_plain_loop(scores: np.ndarray, removable: np.ndarray, seed: int) -> None:
    """The model adds the values of the kept tokens, so the effect of a token is its value."""
    values = np.random.default_rng(seed).integers(-2, 3, (6, 4)).astype(float)
    ties = draw_ties(seed, range(6), "image", 4)
    strongest = strongest_tokens(scores, removable, ties)
    kept = np.arange(4) != strongest[:, None]
    result = violations(scores, removable, values.sum(axis=1), (values * kept).sum(axis=1), ties)
    hits, samples = 0, 0
    for w, can_be_removed, value, tie in zip(scores, removable, values, ties, strict=True):
        tokens = [token for token in range(4) if can_be_removed[token]]
        if tokens:
            k = max(tokens, key=lambda token: (abs(w[token]), -tie[token]))
            hits += bool(w[k] * value[k] < 0)
            samples += 1
    summary = summarize(result)
    assert (summary.samples, summary.left_out) == (samples, 6 - samples)
    assert summary.mean == pytest.approx(hits / samples) if samples else math.isnan(summary.mean)


@pytest.mark.filterwarnings("error")
def test_sample_without_removable_token_is_left_out_also_if_it_has_nan() -> None:
    scores = np.array([[np.nan, np.nan], [1.0, 0.0]])
    removable = np.array([[False, False], [True, True]])
    result = violations(scores, removable, np.array([0.5, 0.5]), np.array([np.nan, 0.9]), np.zeros((2, 2)))
    assert summarize(result) == (1.0, 1, 1)


@pytest.mark.parametrize("measure", MEASURES)
@settings(deadline=None)
@given(
    scores=arrays(np.float64, (3, 8), elements=FEW_VALUES),
    effects=arrays(np.float64, (3, 8), elements=FEW_VALUES),
    removable=arrays(np.bool_, (3, 8)),
)
def test_correlations_equal_scipy(
    scipy_stats: ModuleType, measure: Measure, scores: np.ndarray, effects: np.ndarray, removable: np.ndarray
) -> None:
    oracle = scipy_stats.pearsonr if measure is pearson else scipy_stats.spearmanr
    for sample, value in enumerate(measure(scores, effects, removable)):
        a, b = scores[sample, removable[sample]], effects[sample, removable[sample]]
        if len(set(a)) < 2 or len(set(b)) < 2:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(oracle(a, b).statistic, abs=1e-12)


def test_ties_share_ranks() -> None:
    # The correlation of the ranks 1.5 1.5 3 4 and 1 2 3 4, by hand: 4.5 / sqrt(4.5 * 5).
    scores, effects = np.array([[0.0, 0.0, 1.0, 2.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    assert spearman(scores, effects, ALL) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_spearman_ignores_the_curvature_of_a_monotone_relation() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert spearman(scores, np.exp(3 * scores), ALL) == pytest.approx(1)
    assert spearman(scores, -np.exp(3 * scores), ALL) == pytest.approx(-1)
    assert pearson(scores, np.exp(3 * scores), ALL)[0] < 0.9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("measure", MEASURES)
def test_scale_and_shift_do_not_matter_even_for_tiny_scores(measure: Measure) -> None:
    random = np.random.default_rng(1)
    scores, effects = random.normal(size=(2, 5, 9))
    removable = random.random((5, 9)) < 0.7
    expected = measure(scores, effects, removable)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(measure(scores * 1e-250, effects * 5 + 1, removable), expected, rtol=1e-9)
    np.testing.assert_allclose(measure(-scores, effects, removable), -expected, rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("measure", MEASURES)
def test_undefined_values_are_left_out_and_counted(measure: Measure) -> None:
    scores = np.array([[0.1] * 3, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    effects = np.array([[1.0, 2.0, 3.0], [0.3] * 3, [1.0, 2.0, 3.0], [3.0, 6.0, 9.0]])
    removable = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 0], [1, 1, 1]], dtype=bool)
    values = measure(scores, effects, removable)
    assert np.isnan(values).tolist() == [True, True, True, False]
    assert summarize(values) == (pytest.approx(1), 1, 3)


@pytest.mark.filterwarnings("error")
def test_summary_without_a_defined_value() -> None:
    mean, samples, left_out = summarize(np.array([np.nan, np.nan]))
    assert math.isnan(mean)
    assert (samples, left_out) == (0, 2)


def test_refused_numbers() -> None:
    scores, removable = np.ones((3, 2)), np.ones((3, 2), dtype=bool)
    broken = scores.copy()
    broken[1, 0] = np.nan
    for measure in MEASURES:
        with pytest.raises(UserError, match="sample 1"):
            measure(broken, scores, removable)
        with pytest.raises(ValueError, match="sample 1"):
            measure(scores, broken, removable)
        with pytest.raises(ValueError, match="must have the shape of the scores"):
            measure(scores, scores[:1], removable)
    with pytest.raises(UserError, match="sample 1"):
        strongest_tokens(broken, removable, scores)
    with pytest.raises(ValueError, match="sample 2"):
        violations(scores, removable, np.ones(3), np.array([0.0, 0.0, np.nan]), scores)
    with pytest.raises(ValueError, match="must be one per sample"):
        violations(scores, removable, np.ones(3), np.ones(1), scores)
