"""Declarations of config keys: what values a key of a schema takes, declared once at its field.

``layers: int = whole(1)`` declares a whole number of 1 or more. A key without a declaration takes values of its type.
The check itself is in :mod:`clipmapper.config.values`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

#: Returns what a value must be, or None if it is allowed. The value has the type of the field, and is not None.
Rule = Callable[[Any], str | None]
RULE, ITEMS = "rule", "items"  # keys of a field's metadata
MOST = 10**9  # of whole numbers without a bound of their own
MOST_IN_BATCH = 10**6
MOST_THREADS = 1024  # and processes


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, without ``low`` (``above``) or ``high`` (``below``) themselves."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, value: float) -> str | None:
        """Return the bounds that the value violates."""
        if not math.isfinite(value):
            return "must be a finite number"
        under = value <= self.low if self.above else value < self.low
        over = value >= self.high if self.below else value > self.high
        if not under and not over:
            return None
        low = f"above {self.low:,}" if self.above else f"{self.low:,} or more"
        high = f"less than {self.high:,}" if self.below else f"at most {self.high:,}"
        narrow = -math.inf < self.low and self.high < MOST  # then both bounds are told
        return "must be " + (f"{low} and {high}" if narrow else low if under else high)


@dataclass(frozen=True)
class Choice:
    """One of these texts."""

    names: tuple[str, ...]

    def __call__(self, value: Any) -> str | None:
        """Return the choices if the value is none of them."""
        return None if value in self.names else f"is not one of: {', '.join(self.names)}"


@dataclass(frozen=True)
class Items:
    """A list, of which every item follows a rule."""

    rule: Rule
    empty: bool = False  #: the list may be empty
    repeated: bool = False  #: an item may occur twice


def whole(low: int, high: int = MOST, default: Any = MISSING) -> Any:
    """Declare a whole number from ``low`` to ``high``."""
    return _declared(Range(low, high), default)


def real(low: float, high: float = math.inf, above: bool = False, below: bool = False) -> Any:
    """Declare a finite number from ``low`` to ``high``, or above and below them."""
    return _declared(Range(low, high, above, below))


def choice(*names: str, default: Any = MISSING) -> Any:
    """Declare one of these texts."""
    return _declared(Choice(names), default)


def text(default: Any = MISSING) -> Any:
    """Declare any text, also an empty one."""
    return _declared(lambda value: None, default)


def path(default: Any = MISSING) -> Any:
    """Declare a path, or the name of a file, which is not empty."""
    return _declared(lambda value: None if value.strip() else "is empty: give a path", default)


def ruled(rule: Rule) -> Any:
    """Declare a value that follows a rule of its own."""
    return _declared(rule)


def items(rule: Rule, empty: bool = False, repeated: bool = False, default: Any = MISSING) -> Any:
    """Declare a list, or the values of a dict, that follow a rule."""
    return field(default=default, metadata={ITEMS: Items(rule, empty, repeated)})


def anything(value: Any) -> str | None:
    """Allow every text: a rule for the items of a list."""
    return None


def _declared(rule: Rule, default: Any = MISSING) -> Any:
    return field(default=default, metadata={RULE: rule})
