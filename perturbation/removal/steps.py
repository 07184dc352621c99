"""The removed fractions of the tokens, and the number of tokens that each fraction removes."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real

from clipmapper.config.values import shown
from clipmapper.errors import UserError

STEP_LISTS: dict[str, tuple[float, ...]] = {
    # Huang et al. 2023.
    "paper": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75, 1.0),
    # The reference code of Chefer et al. (2021), whose steps are 1 minus those of the paper.
    "chefer": (0.0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
}

# Largest denominator of a fraction: large enough for every list of steps, and small enough that
# 3 * 0.1 = 0.30000000000000004 becomes 3/10.
_LARGEST_DENOMINATOR = 10**12


def parse_steps(value: str | Sequence[float]) -> tuple[float, ...]:
    """Return the removed fractions, which rise from 0: a named list, or the given numbers.

    The list must start with 0, because the point without removal is part of the area under the curve, and contain at
    least one more step. It may end before 1, but the area covers only the given steps, so areas are comparable only
    between equal lists.

    Args:
        value: ``paper``, ``chefer``, or numbers from 0 to 1.

    Raises:
        UserError: The name is unknown, or the list is empty, contains anything other than numbers from 0 to 1, does not
            rise strictly, does not start with 0, or contains only 0.
    """
    if isinstance(value, str):
        return _steps_by_name(value)
    if not isinstance(value, Sequence):
        raise UserError(
            f"steps={shown(value)} is neither a name ({', '.join(STEP_LISTS)}) nor a list such as [0,0.5,1]"
        )
    steps = tuple(_fraction_removed(step) for step in value)
    if not steps:
        raise UserError("steps is an empty list: give at least two, such as [0,0.5,1]")
    if steps[0] != 0:
        raise UserError(
            f"steps begins with {steps[0]:g}, not 0: the point without removal is part of the area, put 0 first"
        )
    for before, step in itertools.pairwise(steps):
        if step == before:
            raise UserError(f"steps contains {step!r} twice: give every step once")
        if step < before:
            raise UserError(f"steps is not sorted: {step!r} comes after {before!r}; write it in rising order")
    if len(steps) == 1:
        raise UserError("steps contains only 0, which removes nothing: add a step, such as [0,0.5,1]")
    return steps


def removed_count(n: int, step: float) -> int:
    """Return how many of ``n`` tokens a step removes: k = n − floor((1 − step)·n), which is ceil(step·n).

    The formula is that of the reference code of Chefer et al. (2021), but it is computed exactly: 0.9 counts as nine
    tenths. In floating point, (1 − 0.9)·10 is below 1, and the step 0.9 would remove all of 10 tokens. Every step above
    0 removes at least one of n ≥ 1 tokens.
    """
    return n - int((1 - _exact_fraction(step)) * n)


def _exact_fraction(step: float) -> Fraction:
    return Fraction(step).limit_denominator(_LARGEST_DENOMINATOR)


def _steps_by_name(name: str) -> tuple[float, ...]:
    if name in STEP_LISTS:
        return STEP_LISTS[name]
    close = difflib.get_close_matches(name, STEP_LISTS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"steps={name!r} is unknown: {hint}choose {' or '.join(STEP_LISTS)}, or a list such as [0,0.5,1]")


def _fraction_removed(step: object) -> float:
    if isinstance(step, bool) or not isinstance(step, Real):
        raise UserError(f"steps contains {step!r}, which is no number: steps are fractions from 0 to 1")
    fraction = float(step)
    if not 0 <= fraction <= 1:  # also catches NaN
        raise UserError(f"steps contains {fraction:g}, which is outside 0 to 1: steps are fractions, 5 % is 0.05")
    return fraction
