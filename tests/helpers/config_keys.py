"""The keys of a typed config, and a config in which one of them has another value."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

Config = TypeVar("Config")


def leaves(value: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of a config that are no sections, with dots between the names of sections and keys."""
    for field in fields(value):
        name, each = f"{key}{field.name}", getattr(value, field.name)
        if is_dataclass(each):
            yield from leaves(each, f"{name}.")
        else:
            yield name


def changed(config: Config, key: str) -> Config:
    """Return a config whose key has another value."""
    other = deepcopy(config)
    *path, last = key.split(".")
    section: Any = other
    for name in path:
        section = getattr(section, name)
    setattr(section, last, "another value")
    return other
