"""Benchmarks with little work: small batches, short captions, and each way measured once."""

from __future__ import annotations

import pytest

from clipmapper.benchmarks import captioning, encoding, explaining, feeding, training
from perturbation.benchmark import perturbing, precision, reading, stages


def shrink_benchmarks(patch: pytest.MonkeyPatch) -> None:
    """Replace the amounts of work that the benchmarks are measured with; those of new processes stay."""
    for module in (captioning, explaining):
        patch.setattr(module, "BATCH", 2)
    for module in (captioning, encoding, explaining, feeding, training):
        patch.setattr(module, "ROUNDS", 1)
    patch.setattr(captioning, "LENGTH", 3)
    patch.setattr(feeding, "STEPS", 2)
    patch.setattr(precision, "QUESTIONS", 4)
    patch.setattr(encoding, "BATCHES", 2)
    for module in (feeding, training):
        patch.setattr(module, "ITEMS", 40)
    patch.setattr(captioning, "WORDS", 2)
    little = perturbing.Load(samples=2, plain_samples=1, engine_batch=32, rounds=1, product=64, many=4, few=2)
    patch.setattr(perturbing, "LOADS", {"tiny": little})
    one = stages.Load(images=2, texts=4, steps=1, answered=8, explained=1, captions=2, product=64)
    patch.setattr(stages, "LOAD", one)
    patch.setattr(reading, "LOAD", reading.Load(samples=1, rounds=1))
