"""Numbers and lists as text."""

from __future__ import annotations

import pytest

from perturbation.page.numbers import counted, interval, listed, number, p_value, percent, with_interval


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (1.25, 1, False, "1.2"),
        (-0.04, 1, False, "0.0"),
        (-1.5, 2, False, "−1.50"),
        (2, 1, True, "+2.0"),
        (-2, 1, True, "−2.0"),
        (None, 1, False, "–"),
    ],
)
def test_a_number_has_fixed_digits_and_a_minus_sign(value: float, digits: int, signed: bool, text: str) -> None:
    assert number(value, digits, signed) == text


def test_an_interval_that_is_not_defined_is_left_out() -> None:
    assert interval([-1, 2.345], 2) == "[−1.00, 2.35]"
    assert interval([None, None]) == interval(None) == ""
    assert with_interval(3, [1, 5]) == "3.0 [1.0, 5.0]"
    assert with_interval(3, None) == "3.0"


def test_p_values_and_shares() -> None:
    assert [p_value(p) for p in (0.0004, 0.001, 1.0)] == ["p < 0.001", "p = 0.001", "p = 1.000"]
    assert [percent(share) for share in (0, 0.05, 0.125, 1)] == ["0", "5", "12.5", "100"]


def test_a_list_in_words() -> None:
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed([*"abcdefgh"]) == "a, b, c, d, e, f, g and h"
    assert listed([*"abcdefghi"]) == "a, b, c, d, e, f, g and 2 more"
    assert [counted(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
