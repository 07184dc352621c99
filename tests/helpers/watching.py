"""Observation of calls, which still run as usual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def watched(owner: Any, name: str, see: Callable[..., object]) -> Iterator[None]:
    """Call ``see`` with the arguments of each call of a module's function or a class's method, before the call."""
    original = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        see(*args, **options)
        return original(*args, **options)

    with patch.object(owner, name, call):
        yield
