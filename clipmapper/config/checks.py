"""Checks that the schemas of configs share."""

from __future__ import annotations

from omegaconf import MISSING

from clipmapper.errors import UserError


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ``UserError`` where a value is none of the choices."""
    if value != MISSING and value not in choices:
        raise UserError(f"{key}={value} is not one of: {', '.join(choices)}")


def at_least(bound: int, section: str, **values: float | None) -> None:
    """Raises ``UserError`` naming ``section``'s key where a value is below the bound; None is no value."""
    for name, value in values.items():
        if value not in (None, MISSING) and value < bound:
            raise UserError(f"{section}.{name}={value} must be {bound} or more")
