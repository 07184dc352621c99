"""Numbers as text: the same digits everywhere, a true minus sign, and a dash for what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from perturbation.report.tables import MISSING

MINUS, NBSP = "\u2212", "\u00a0"
MOST = 8  # names in a list


def plain(name: str) -> str:
    """Return the name of a recorded value as it is written in sentences."""
    return name.replace("_", " ")


def unit(value: str) -> str:
    """Return the unit of a recorded value that is multiplied by 100: a percent sign for shares, else the factor."""
    return "%" if value in ("accuracy", "probability") else "× 100"


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """Return a number with a fixed number of decimals.

    Args:
        value: The number; None if it is not defined.
        digits: Number of decimals.
        signed: Whether a positive number gets a plus sign.
    """
    if value is None:
        return MISSING
    rounded = round(value, digits) + 0.0  # adding 0 turns -0.0 into 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def interval(ends: Sequence[float | None] | None, digits: int = 1, signed: bool = False) -> str:
    """Return an interval in brackets, or an empty text if it is not defined."""
    if ends is None or None in ends:
        return ""
    low, high = (number(end, digits, signed) for end in ends)
    return f"[{low}, {high}]"


def with_interval(value: float | None, ends: Sequence[float | None] | None, digits: int = 1) -> str:
    """Return a number followed by its interval."""
    return f"{number(value, digits)} {interval(ends, digits)}".strip()


def percent(share: float) -> str:
    """Return a share in percent, without a unit and without unneeded decimals."""
    return f"{100 * share:.4g}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words: ``a``, ``a and b``, ``a, b and c``; the end of a long list as its number."""
    if len(names) > MOST:
        names = [*names[: MOST - 1], f"{len(names) - MOST + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, whose plural has an s."""
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"
