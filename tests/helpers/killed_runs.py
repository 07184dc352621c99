"""Runs that are killed in the middle, in the test's own process."""

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
    """Nothing catches it but the test."""


@contextmanager
def killed_at(module: type[MapperTraining[Any]], step: int) -> Iterator[None]:
    """The training run inside is killed as it begins a step."""

    def see(training: MapperTraining[Any], *_: object) -> None:
        if training.global_step == step:
            raise Killed

    with pytest.raises(Killed), watched(module, "training_step", see):
        yield


@contextmanager
def killed_after(parts: int) -> Iterator[None]:
    """The perturbation run inside is killed as it begins to write the next part, or, after the last, to merge them."""
    written = count()

    def see(*_: object) -> None:
        if next(written) == parts:
            raise Killed

    with pytest.raises(Killed), watched(lightning, "write_part", see), watched(run, "merge", see):
        yield
