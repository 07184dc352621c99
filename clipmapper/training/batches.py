"""Batches in an order that is a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler


class StepSampler(Sampler[list[int]]):
    """One batch a training step, from step ``start`` to ``stop``; batch s is the same however training got there.

    Every epoch is a fresh permutation; a batch may span two epochs. With several processes each takes its share of
    every batch.
    """

    def __init__(self, size: int, batch_size: int, stop: int, seed: int, rank: int = 0, world: int = 1):
        self.size, self.batch_size, self.stop, self.seed = size, batch_size, stop, seed
        self.rank, self.world = rank, world
        self.start = 0

    def __len__(self) -> int:
        return self.stop

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            places = range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world)
            yield [int(self._order(place // self.size)[place % self.size]) for place in places]

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        return self._permutation


def in_order(size: int, batch_size: int) -> list[list[int]]:
    """Every row once, for evaluation."""
    return [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]


def even_batches(rows: Sequence[int], size: int, least: bool = False) -> list[list[int]]:
    """Splits rows into batches of at most ``size``, or with ``least`` of at least ``size``.

    Their sizes differ by at most one, so that no batch is of one sample, which some explainers refuse, unless there is
    one sample in all or ``size`` is below 3.
    """
    return split_evenly(rows, max(1, len(rows) // size) if least else -(-len(rows) // size))


def split_evenly(rows: Sequence[int], count: int) -> list[list[int]]:
    """Splits rows into ``count`` batches, of sizes that differ by at most one."""
    return [part.tolist() for part in np.array_split(np.asarray(rows, np.int64), count)]


class Batches(pl.LightningDataModule):
    """Training batches by step, so that a resumed run goes on with the very batch it would have seen next."""

    def __init__(self, train: Dataset[Any], val: Dataset[Any], batch_size: int, max_steps: int, seed: int):
        super().__init__()
        self.train, self.val = train, val
        self.sizes = len(train), len(val)  # type: ignore[arg-type]
        self.batch_size, self.max_steps, self.seed = batch_size, max_steps, seed

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            self.sizes[0], self.batch_size, self.max_steps, self.seed, trainer.global_rank, trainer.world_size
        )
        sampler.start = trainer.global_step
        return DataLoader(self.train, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, sampler=in_order(self.sizes[1], 256), batch_size=None)
