"""Runs that are killed in the middle, inside the test's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from watching import watched

from clipmapper.training.module import MapperTraining
from perturbation.perturb import lightning, run


class Killed(BaseException):
    """An exception that only the test catches."""


@contextmanager
def killed_at(module: type[MapperTraining[Any]], step: int) -> Iterator[None]:
    """Kill the training run inside the context when it begins a step."""

    def see(training: MapperTraining[Any], *_: object) -> None:
        if training.global_step == step:
            raise Killed

    with pytest.raises(Killed), watched(module, "training_step", see):
        yield


@contextmanager
def killed_after(parts: int) -> Iterator[None]:
    """Kill the perturbation run inside the context after some parts: before the next part is written or merged."""
    written = count()

    def see(*_: object) -> None:
        if next(written) == parts:
            raise Killed

    with pytest.raises(Killed), watched(lightning, "write_part", see), watched(run, "merge", see):
        yield
