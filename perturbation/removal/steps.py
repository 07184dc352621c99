"""Which fractions of the tokens are removed, and how many tokens a fraction is."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real

from clipmapper.errors import UserError

STEP_LISTS: dict[str, tuple[float, ...]] = {
    "paper": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75, 1.0),
    # The mirror image, in the reference code of Chefer et al. (2021).
    "chefer": (0.0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
}

# Finer than any list needs, and coarse enough to see 3/10 in 3 * 0.1 = 0.30000000000000004.
_FINEST = 10**12


def parse_steps(value: str | Sequence[float]) -> tuple[float, ...]:
    """The removed fractions, rising from 0: a list known by name, or the user's own numbers.

    The list must begin with 0, because the unmasked point belongs to the area under the curve, and go on from there. It
    need not end with 1; but the area covers only the steps given, so areas compare between equal lists alone.

    Args:
        value: ``paper``, ``chefer``, or numbers in 0..1.

    Raises:
        UserError: an unknown name, or a list that is empty, holds something that is no number in 0..1, does not rise
            strictly, does not begin with 0, or ends there.
    """
    if isinstance(value, str):
        return _named(value)
    if not isinstance(value, Sequence):
        raise UserError(f"steps={value!r} is neither a name ({', '.join(STEP_LISTS)}) nor a list such as [0,0.5,1]")
    steps = tuple(_fraction_removed(step) for step in value)
    if not steps:
        raise UserError("steps is an empty list: give at least two, such as [0,0.5,1]")
    if steps[0] != 0:
        raise UserError(f"steps begins with {steps[0]:g}, not 0: the unmasked point is part of the area, put 0 first")
    for before, step in itertools.pairwise(steps):
        if step == before:
            raise UserError(f"steps holds {step!r} twice: name every step once")
        if step < before:
            raise UserError(f"steps is not sorted: {step!r} comes after {before!r}; write it in rising order")
    if len(steps) == 1:
        raise UserError("steps holds 0 alone, which removes nothing: add a step, such as [0,0.5,1]")
    return steps


def removed_count(n: int, step: float) -> int:
    """How many of ``n`` tokens a step removes: k = n − floor((1 − step)·n), which is ceil(step·n).

    As in the reference code of Chefer et al., but in exact arithmetic on the decimal number that was written: 0.9 is
    nine tenths, where floating point finds (1 − 0.9)·10 below 1 and removes all of 10 tokens. Every step above 0
    removes at least one of n ≥ 1 tokens.
    """
    return n - int((1 - _exact(step)) * n)


def _exact(step: float) -> Fraction:
    return Fraction(step).limit_denominator(_FINEST)


def _named(name: str) -> tuple[float, ...]:
    if name in STEP_LISTS:
        return STEP_LISTS[name]
    close = difflib.get_close_matches(name, STEP_LISTS, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise UserError(f"steps={name!r} is unknown: {meant}choose {' or '.join(STEP_LISTS)}, or a list such as [0,0.5,1]")


def _fraction_removed(step: object) -> float:
    if isinstance(step, bool) or not isinstance(step, Real):
        raise UserError(f"steps holds {step!r}, which is no number: steps are fractions in 0..1")
    fraction = float(step)
    if not 0 <= fraction <= 1:  # also true of NaN
        raise UserError(f"steps holds {fraction:g}, which is outside 0..1: steps are fractions, 5 % is 0.05")
    return fraction
