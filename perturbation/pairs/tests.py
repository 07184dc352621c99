"""The tests of explanations of one model on pairs of an image and a text."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch

from perturbation.measures.base import Measure
from perturbation.pairs.explaining import Chosen, explained_pairs
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import Pair
from perturbation.pairs.units import Units
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import record_batch
from perturbation.removal.reader import Subsets

SAME = 1e-4  # largest difference between two values of one pair that is not told


@dataclass(frozen=True, eq=False)
class PairTests:
    """The tests of one model: what it reads, and who explains it.

    Args:
        model: The model, as :func:`perturbation.test` takes it.
        processor: Its processor.
        reader: Its reader.
        chosen: The explainers under test.
        measures: Measures by name.
        seed: Seed of random orders, of equal scores and of noise.
    """

    model: Any
    processor: Any
    reader: PairReader
    chosen: Chosen
    measures: Mapping[str, Measure]
    seed: int

    def record(self, pairs: Sequence[Pair], start: int) -> Tables:
        """Return the records of a batch of pairs, before which there are ``start`` others.

        Raises:
            UserError: A pair cannot be explained, or the model fails.
        """
        with torch.random.fork_rng():  # some models draw at random; a resumed run draws the same
            torch.manual_seed(crc32(f"{self.seed}/{start}".encode()))
            return self._record(pairs, start)

    def _record(self, pairs: Sequence[Pair], start: int) -> Tables:
        explained, units = explained_pairs(self.model, self.processor, pairs, self.chosen, start, self.seed)
        asked = self.reader.ask(pairs)
        if start == 0:
            self._tell_changes(pairs, units, asked)
        samples = self.reader.samples(pairs, units, self.seed)
        return record_batch(self.measures, explained, self.reader, samples, asked)

    def _tell_changes(self, pairs: Sequence[Pair], units: Sequence[Units], asked: Any) -> None:
        """Print a warning if the model gives different values for the same complete pairs."""
        first, second = (
            self.reader.read(self.reader.samples(pairs, units, self.seed), Subsets(), asked).responses for _ in range(2)
        )
        difference = float(np.abs(first - second).max())
        if difference > SAME:
            value = self.reader.scorer.value
            print(
                f"warning: the model is not deterministic: its {value} of the same sample differs by {difference:.2g}",
                file=sys.stderr,
            )
