"""Statistics of training images: distances equal a direct computation, and 1 is the 99th percentile."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clipmapper.explaining.image_statistics import FEWEST_IMAGES, RIDGE, ImageStatistics

WIDTH = 6


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """Draw features with unequal variances, correlations, and a mean that is not 0."""
    mixing = np.random.default_rng(7).normal(size=(WIDTH, WIDTH)) * np.array([5, 2, 1, 0.5, 0.1, 0.02])
    return np.random.default_rng(seed).normal(size=(count, WIDTH)) @ mixing.T + np.arange(WIDTH)


def fitted(features: np.ndarray) -> ImageStatistics:
    found = ImageStatistics.fit(features)
    assert found is not None
    return found


def test_distances_are_mahalanobis_distances_over_their_99th_percentile() -> None:
    features, others = drawn(600), drawn(5, seed=1) * 3
    rest = np.array([row for place, row in enumerate(features) if place % 4 != 3])
    held_out = features[3::4]
    centred = rest - rest.mean(0)
    covariance = centred.T @ centred / (len(rest) - 1)
    covariance += RIDGE * centred.var(0).mean() * np.eye(WIDTH)

    def plain(row: np.ndarray) -> float:
        difference = row - rest.mean(0)
        return float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))

    percentile = np.quantile([plain(row) for row in held_out], 0.99)
    expected = [plain(row) / percentile for row in others]
    np.testing.assert_allclose(fitted(features).distance(others), expected, rtol=1e-9)


def test_one_of_a_hundred_new_images_is_beyond_one() -> None:
    beyond = (fitted(drawn(8000)).distance(drawn(20_000, seed=1)) > 1).mean()
    assert 0.006 < beyond < 0.014  # 0.01, with the error of 2,000 held-out images


def test_units_and_positions_do_not_matter() -> None:
    features, others = drawn(600), drawn(5, seed=1)
    moved = fitted(1e3 * features - 50).distance(1e3 * others - 50)
    np.testing.assert_allclose(moved, fitted(features).distance(others), rtol=1e-6)


def test_few_or_equal_images_have_no_statistics() -> None:
    assert ImageStatistics.fit(drawn(FEWEST_IMAGES)) is not None
    assert ImageStatistics.fit(drawn(FEWEST_IMAGES - 1)) is None
    assert ImageStatistics.fit(drawn(1)) is None
    assert ImageStatistics.fit(np.tile(drawn(1), (FEWEST_IMAGES, 1))) is None


def test_a_direction_without_variance_is_no_error() -> None:
    features = drawn(600)
    features[:, 2] = features[:, 1]
    assert np.isfinite(fitted(features).distance(drawn(5, seed=1))).all()


def test_an_entry_of_a_card_gives_the_same_distances() -> None:
    whole, others = fitted(drawn(600)), drawn(50, seed=1)
    read = ImageStatistics.read(json.loads(json.dumps(whole.entry())))
    np.testing.assert_allclose(read.distance(others), whole.distance(others), rtol=1e-4)
    assert ImageStatistics.read(read.entry()).entry() == read.entry() == whole.entry()


@pytest.mark.parametrize("width", [6, 128])
def test_an_entry_is_small(width: int) -> None:
    """Each number of the mean and of the triangle takes 4 bytes, and base64 makes 4 characters of 3 bytes."""
    entry = ImageStatistics(np.zeros(width), np.eye(width)).entry()
    numbers = width + width * (width + 1) / 2
    assert sum(map(len, entry.values())) <= numbers * 4 * 4 / 3 + 8
