"""Perturbation runs that are small enough for a test, and functions to read their results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from no_figures import without_figures
from tiny_runs import Tiny, composed

from clipmapper.cli import typed
from perturbation.config import PerturbConfig
from perturbation.perturb.run import perturb

# The six samples are divided into two batches of 3.
SMALL = ("samples=6", "batch_samples=4", "engine_batch=16", "random_seeds=2", "controls=[random]")
# Those of the fixture ``whole``. The search of the ceiling reads up to 3 × 36 subsets at each step.
WHOLE = ("ceiling.samples=4", "engine_batch=64")


@dataclass(frozen=True)
class Trained:
    """The checkpoint of a tiny training run, and the overrides to test it."""

    tiny: Tiny
    checkpoint: Path

    @property
    def overrides(self) -> tuple[str, ...]:
        return *self.tiny.overrides, f"checkpoint={self.checkpoint}", *SMALL

    def config(self, *overrides: str) -> PerturbConfig:
        checked: PerturbConfig = typed(composed("perturb", *self.overrides, *overrides), PerturbConfig)
        return checked

    def perturb(self, run: Path, *overrides: str, explainer: str = "weighted", figures: bool = False) -> dict[str, Any]:
        run.mkdir(parents=True, exist_ok=True)
        with nullcontext() if figures else without_figures():
            return perturb(self.config(f"explainer={explainer}", *overrides), explainer, run)


def results(run: Path, figures: bool = False) -> dict[str, bytes]:
    """Return the bytes of every result file by name, with or without the figures.

    The log, the parts, the config with its paths, and the measured batch size of the engine are left out.
    """
    return {
        file.name: file.read_bytes()
        for file in sorted(run.iterdir())
        if file.is_file()
        and file.name not in ("config.yaml", "engine.json")
        and (figures or not file.name.startswith("curves_"))
    }


def records(run: Path, kind: str = "samples") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / f"{kind}.parquet").to_pylist()
    return rows


def key(row: dict[str, Any], *more: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("question_id", "modality", "explainer", "seed", *more))


def removed(scores: list[float], removable: list[int], step: float, direction: str, ties: Sequence[float]) -> set[int]:
    """Return the positions of the tokens that a step removes, computed from the definition."""
    sign = -1 if direction == "positive" else 1
    order = sorted(removable, key=lambda place: (sign * scores[place], ties[place]))
    share = 1 - Fraction(str(step))
    return set(order[: len(order) - int(share * len(order) // 1)])


def trapezoid(curve: list[float], steps: list[float]) -> float:
    """Return the area under a curve in percent, computed piece by piece."""
    pieces = zip(curve, curve[1:], steps, steps[1:], strict=False)
    return 100 * sum((a + b) / 2 * (t - s) for a, b, s, t in pieces)


def mean(values: list[list[float]]) -> list[float]:
    """Return the mean over the first axis."""
    found: list[float] = np.mean(values, axis=0).tolist()
    return found
