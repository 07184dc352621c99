"""Intervals, the sign-flip test and Holm's correction."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from perturbation.removal.steps import STEP_LISTS
from perturbation.report.curves import area_under_mean, areas
from perturbation.statistics import (
    CHUNK_NUMBERS,
    bootstrap_interval,
    bootstrap_means,
    holm,
    seed_interval,
    sign_flip_p_value,
)


def exact_sign_flip(differences: np.ndarray) -> float:
    """Return the share of all 2^n sign patterns whose mean is at least as far from 0 as the observed one.

    The differences must be whole numbers, so that sums are exact.
    """
    seen = abs(differences.sum())
    patterns = itertools.product((-1, 1), repeat=len(differences))
    return float(np.mean([abs(np.dot(pattern, differences)) >= seen for pattern in patterns]))


def slow_holm(p_values: list[float]) -> list[float]:
    """Return the corrected p-value of each hypothesis: the smallest α at which the step-down procedure rejects it."""

    def rejected(alpha: float) -> set[int]:
        left = set(range(len(p_values)))
        while left:
            smallest = min(left, key=lambda index: p_values[index])
            if p_values[smallest] * len(left) > alpha * (1 + 1e-12):
                break
            left.remove(smallest)
        return set(range(len(p_values))) - left

    levels = sorted({min(1.0, p * count) for p in p_values for count in range(1, len(p_values) + 1)} | {1.0})
    return [min((level for level in levels if index in rejected(level)), default=1.0) for index in range(len(p_values))]


def coverage(interval: np.ndarray) -> float:
    """Return the share of intervals [2, trials] that contain the true mean, 0."""
    return float(np.mean((interval[0] <= 0) & (interval[1] >= 0)))


# Bootstrap over samples.


def test_interval_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).exponential(size=(60, 2)) * [1, 50]
    ours = bootstrap_interval(values, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, axis=0, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1), batch=1000
    ).confidence_interval
    width = ours[1] - ours[0]
    # The end of an interval of 20,000 resamples has a standard error of about 1 % of the width.
    np.testing.assert_allclose((ours - np.array([theirs.low, theirs.high])) / width, 0, atol=0.04)


def test_interval_of_normal_values_is_the_textbook_one() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=2000)
    low, high = bootstrap_interval(values, resamples=20_000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.05 * half),
        pytest.approx(values.mean() + half, abs=0.05 * half),
    )


def test_resamples_of_two_samples_have_the_expected_probabilities() -> None:
    means = bootstrap_means(np.array([0.0, 1.0]), resamples=40_000)
    shares = [np.mean(means == value) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.012)
    assert sum(shares) == 1


def test_coverage_is_near_95_percent() -> None:
    """Each column is one trial; 2,000 trials have a standard error of 0.5 %."""
    trials = np.random.default_rng(0).exponential(size=(60, 2000)) - 1
    assert 0.91 < coverage(bootstrap_interval(trials)) < 0.955


def test_areas_of_resampled_mean_curves_are_means_of_resampled_areas() -> None:
    steps = STEP_LISTS["paper"]
    curves = np.random.default_rng(0).random((50, 9))
    of_curves = areas(bootstrap_means(curves, resamples=300, seed=4), steps)
    of_areas = bootstrap_means(areas(curves, steps), resamples=300, seed=4)
    np.testing.assert_allclose(of_curves, of_areas, rtol=1e-12)
    low, high = bootstrap_interval(areas(curves, steps))
    assert low < area_under_mean(curves, steps) < high


def test_columns_share_their_resamples_and_keep_their_shape() -> None:
    values = np.random.default_rng(0).random((30, 2, 3))
    means = bootstrap_means(values, resamples=50, seed=1)
    assert means.shape == (50, 2, 3)
    assert bootstrap_interval(values).shape == (2, 2, 3)
    np.testing.assert_allclose(means[:, 1, 2], bootstrap_means(values[:, 1, 2], resamples=50, seed=1), rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.1, 10))
def test_interval_shifts_and_scales_with_the_values(seed: int, shift: float, scale: float) -> None:
    values = np.random.default_rng(seed).random(20)
    moved = bootstrap_interval(values * scale + shift, resamples=100, seed=seed)
    np.testing.assert_allclose(moved, bootstrap_interval(values, resamples=100, seed=seed) * scale + shift, atol=1e-9)


def test_constant_values_and_one_sample() -> None:
    np.testing.assert_allclose(bootstrap_interval(np.full(10, 0.25)), 0.25)
    assert np.isnan(bootstrap_interval(np.array([[0.5, 0.5]]))).all()
    assert bootstrap_interval(np.array([[0.5, 0.5]])).shape == (2, 2)


# Bootstrap over training seeds and samples.


def test_shared_samples_need_a_shared_resample() -> None:
    """All seeds share a test split, and a hard sample is hard for every seed; each column is one trial."""
    random = np.random.default_rng(0)
    difficulty = random.normal(0, 1, (1, 100, 500))
    trials = difficulty + random.normal(0, 0.02, (5, 1, 500)) + random.normal(0, 0.3, (5, 100, 500))
    assert coverage(seed_interval(trials, shared_samples=True, resamples=500)) > 0.9
    assert coverage(seed_interval(trials, shared_samples=False, resamples=500)) < 0.75


def test_coverage_with_separate_samples_for_each_of_many_seeds() -> None:
    random = np.random.default_rng(1)
    trials = random.normal(0, 0.3, (12, 1, 500)) + random.normal(0, 1, (12, 40, 500))
    assert 0.88 < coverage(seed_interval(trials, shared_samples=False, resamples=500)) < 0.98


@pytest.mark.parametrize("shared", [True, False])
def test_seed_interval_has_the_variance_of_its_two_levels(shared: bool) -> None:
    """Compare with a slow loop that follows the definition: draw seeds, then samples, and take the mean."""
    values = np.random.default_rng(2).normal(size=(4, 6)) + np.arange(4)[:, None] + 0.8 * np.arange(6)
    random = np.random.default_rng(11)
    means = []
    for _ in range(8000):
        common = random.integers(6, size=6)
        drawn = [
            values[one, common if shared else random.integers(6, size=6)].mean() for one in random.integers(4, size=4)
        ]
        means.append(np.mean(drawn))
    expected = np.percentile(means, [2.5, 97.5])
    low, high = seed_interval(values, shared_samples=shared, resamples=8000)
    width = expected[1] - expected[0]
    assert (low, high) == (pytest.approx(expected[0], abs=0.04 * width), pytest.approx(expected[1], abs=0.04 * width))


def test_with_equal_seeds_the_interval_is_that_over_samples() -> None:
    samples = np.random.default_rng(0).random(200)
    one = bootstrap_interval(samples, resamples=20_000)
    many = seed_interval(np.stack([samples] * 3), shared_samples=True, resamples=20_000)
    np.testing.assert_allclose(many, one, atol=0.04 * (one[1] - one[0]))


def test_with_equal_samples_the_interval_is_that_over_seeds() -> None:
    levels = np.array([1.0, 2.0, 4.0])
    values = np.repeat(levels[:, None], 50, axis=1)
    means = [np.mean(drawn) for drawn in itertools.product(levels, repeat=3)]
    for shared in (True, False):
        low, high = seed_interval(values, shared_samples=shared, resamples=5000)
        assert low == pytest.approx(min(means))  # 1/27 of the resamples, more than 2.5 %
        assert high == pytest.approx(max(means))


def test_seed_interval_keeps_columns() -> None:
    values = np.random.default_rng(0).random((3, 20, 2, 2))
    whole = seed_interval(values, shared_samples=True, seed=5)
    assert whole.shape == (2, 2, 2)
    np.testing.assert_allclose(whole[:, 1, 0], seed_interval(values[..., 1, 0], shared_samples=True, seed=5))


# Paired comparison.


@pytest.mark.parametrize("seed", range(4))
def test_p_value_equals_all_sign_flips(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-5, 8, size=(9, 3)).astype(float)
    exact = [exact_sign_flip(column) for column in table.T]
    assert sign_flip_p_value(table, draws=20_000, seed=seed) == pytest.approx(exact, abs=0.015)


def test_p_value_counts_ties_as_far_enough() -> None:
    """Both sign patterns of one sample are as far from 0 as the observed mean; sums of tenths are not exact."""
    assert sign_flip_p_value(np.array([0.3])) == 1
    assert sign_flip_p_value(np.zeros(5)) == 1
    tenths = np.full(4, 0.1) + np.array([0.2, 0, 0, 0])
    assert sign_flip_p_value(tenths, draws=40_000) == pytest.approx(exact_sign_flip(np.array([3, 1, 1, 1])), abs=0.01)


def test_smallest_p_value() -> None:
    differences = np.full(200, 1.0)
    assert sign_flip_p_value(differences, draws=99) == pytest.approx(0.01)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_p_value_ignores_scale_and_sign(seed: int, scale: float) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, size=15)
    p = sign_flip_p_value(differences, draws=199)
    assert sign_flip_p_value(differences * scale, draws=199) == p
    assert sign_flip_p_value(-differences, draws=199) == p


def test_p_values_are_uniform_when_nothing_differs() -> None:
    null = np.random.default_rng(0).normal(size=(40, 600))
    p = sign_flip_p_value(null, draws=999)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 600))


def test_comparison_of_two_explainers() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(0, 30, size=(100, 1))  # how hard a sample is, equal for both explainers
    difference = hard + random.normal([1.0, 0.0], 1, size=(100, 2)) - (hard + random.normal(0, 1, size=(100, 2)))
    interval, p_value = bootstrap_interval(difference), sign_flip_p_value(difference)
    assert interval[0, 0] > 0
    assert p_value[0] < 0.001
    assert interval[0, 1] < 0 < interval[1, 1]
    assert p_value[1] > 0.05
    np.testing.assert_array_equal(sign_flip_p_value(-difference), p_value)


# Holm's correction.


@settings(deadline=None)
@given(st.lists(st.integers(0, 40).map(lambda k: k / 40), max_size=7))
def test_holm_equals_the_step_down_procedure(p_values: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p_values)), slow_holm(p_values), rtol=1e-9)


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.5])), [0.09, 0.04, 0.09, 0.5])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("p_values", [[0.1, np.nan], [-0.1], [1.1], [[0.1]]])
def test_holm_refuses_values_that_are_no_p_values(p_values: list) -> None:
    with pytest.raises(ValueError, match="one row of p-values, each from 0 to 1"):
        holm(np.array(p_values))


# Seeds, chunks, memory and refused input.


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    values = np.random.default_rng(0).random((40, 3))

    def everything(seed: int) -> list[np.ndarray]:
        return [
            bootstrap_interval(values, resamples=100, seed=seed),
            sign_flip_p_value(values - values[::-1] - 0.1, draws=100, seed=seed),
            seed_interval(values[None].repeat(2, 0), shared_samples=True, seed=seed),
        ]

    for first, again, other in zip(everything(1), everything(1), everything(2), strict=True):
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


@pytest.mark.parametrize("rows", [CHUNK_NUMBERS // 64, CHUNK_NUMBERS // 7, CHUNK_NUMBERS])
def test_chunks_do_not_matter(rows: int) -> None:
    """A chunk of these rows has 64, 7 or 1 draws; fewer draws are the first ones of many draws."""
    values, draws = np.random.default_rng(0).normal(size=(rows, 1)), 2 * min(64, CHUNK_NUMBERS // rows) + 1
    whole = bootstrap_means(values, resamples=draws)
    assert len(np.unique(whole)) == draws
    for fewer in {1, draws // 2, draws - 1}:
        np.testing.assert_allclose(bootstrap_means(values, resamples=fewer), whole[:fewer], rtol=1e-9, atol=1e-12)


def test_chunks_of_sign_flips() -> None:
    """If the mean is z standard errors from 0, the p-value is that of the normal distribution."""
    values = np.random.default_rng(0).normal(size=CHUNK_NUMBERS // 80)
    values -= values.mean()
    differences = np.stack([values + z * values.std() / len(values) ** 0.5 for z in (0.5, 1.5)], 1)
    found = sign_flip_p_value(differences, draws=800)  # in ten chunks
    np.testing.assert_allclose(found, 2 * norm.sf([0.5, 1.5]), atol=0.06)


def test_memory_of_a_large_table() -> None:
    values = np.random.default_rng(0).random((10_000, 20))
    tracemalloc.start()
    bootstrap_interval(values, resamples=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6  # all weights at once would need 80 MB twice, and the resampled values 1.6 GB


def test_refused_tables() -> None:
    values = np.ones((4, 2))
    broken = values.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2"):
        bootstrap_interval(broken)
    with pytest.raises(ValueError, match="row 2"):
        sign_flip_p_value(broken)
    with pytest.raises(ValueError, match="there are no samples"):
        bootstrap_interval(values[:0])
    with pytest.raises(ValueError, match="there are no samples"):
        sign_flip_p_value(values[:0])
    with pytest.raises(ValueError, match="resamples or draws is 0: it must be at least 1"):
        bootstrap_means(values, resamples=0)
    with pytest.raises(ValueError, match="two training seeds"):
        seed_interval(values[:1], shared_samples=True)
