"""Step lists, and the number of tokens that a step removes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from clipmapper.errors import UserError
from perturbation.removal.steps import STEP_LISTS, parse_steps, removed_count

# The percentages printed in Huang et al. 2023 and in the reference code of Chefer et al. (2021).
PERCENTS = {"paper": (0, 5, 10, 15, 20, 25, 50, 75, 100), "chefer": (0, 25, 50, 75, 80, 85, 90, 95, 100)}


@pytest.mark.parametrize("name", PERCENTS)
def test_named_lists_are_the_published_ones(name: str) -> None:
    assert [Fraction(str(step)) for step in parse_steps(name)] == [Fraction(p, 100) for p in PERCENTS[name]]


def test_the_two_lists_mirror_each_other() -> None:
    assert [Fraction(p, 100) for p in PERCENTS["chefer"]] == [
        1 - Fraction(str(step)) for step in reversed(STEP_LISTS["paper"])
    ]


@pytest.mark.parametrize("percent", sorted({p for percents in PERCENTS.values() for p in percents} | {1, 33, 70, 99}))
def test_removed_count_is_exact_for_every_size(percent: int) -> None:
    for n in range(401):
        removed = n - math.floor((1 - Fraction(percent, 100)) * n)
        assert removed_count(n, percent / 100) == removed == -(-percent * n // 100), n


def test_floating_point_gets_some_of_these_counts_wrong() -> None:
    naive = {(n, step): n - int((1 - step) * n) for n in range(401) for step in STEP_LISTS["chefer"]}
    assert any(removed_count(n, step) != removed for (n, step), removed in naive.items())
    assert removed_count(10, 0.9) == 9 != naive[10, 0.9]


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 10**6))
def test_removed_count_follows_the_written_decimal(n: int, millionths: int) -> None:
    assert removed_count(n, millionths / 10**6) == math.ceil(Fraction(millionths, 10**6) * n)


@pytest.mark.parametrize("noisy", [3 * 0.1, 0.1 + 0.2, 1 - 0.7, np.float64(0.1) * 3, np.linspace(0, 1, 11)[3]])
def test_computed_steps_count_as_the_decimal_they_mean(noisy: float) -> None:
    assert [removed_count(n, noisy) for n in (10, 20, 100)] == [3, 6, 30]


def test_thirds_and_ends() -> None:
    assert [removed_count(3, step) for step in (1 / 3, 2 / 3, 1.0, 0.0)] == [1, 2, 3, 0]
    assert removed_count(7, 0.05) == 1
    assert [removed_count(0, step) for step in STEP_LISTS["paper"]] == [0] * 9


def test_custom_lists_are_kept_unchanged() -> None:
    assert parse_steps([0, 0.5, 1]) == (0.0, 0.5, 1.0)
    assert parse_steps((0, 0.3)) == (0.0, 0.3)
    assert parse_steps(OmegaConf.create({"steps": [0, 0.25, 1]}).steps) == (0.0, 0.25, 1.0)
    assert all(type(step) is float for step in parse_steps([0, np.float64(0.5), 1]))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("papr", "did you mean paper"),
        ("0,0.5,1", r"\[0,0.5,1\]"),
        ([], "empty"),
        ([0], "contains only 0"),
        ([0.1, 0.5], "begins with 0.1.*point without removal"),
        ([0, 0.5, 0.25], "not sorted: 0.25 comes after 0.5"),
        ([0, 0.5, 0.5, 1], "0.5 twice"),
        ([0, 5, 10], "contains 5, .*5 % is 0.05"),
        ([0, -0.1], "-0.1"),
        ([0, float("nan")], "nan"),
        ([0, float("inf")], "inf"),
        ([0, "half"], "'half'"),
        ([0, None], "None"),
        ([0, True], "True"),
        (0.5, "neither a name"),
        (None, "neither a name"),
    ],
)
def test_bad_lists_are_refused_on_one_line(value: object, names: str) -> None:
    with pytest.raises(UserError, match=names) as error:
        parse_steps(value)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
