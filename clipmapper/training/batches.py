"""Training batches whose content depends on the seed and the step only, and batches for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from clipmapper.errors import UserError
from clipmapper.training.read_ahead import ReadAhead


class StepSampler(Sampler[list[int]]):
    """Sampler of one batch of rows per number, from ``start`` up to ``stop``: one, or several, for each training step.

    The batch of a number is the same whether training was resumed or not. Each epoch is a new permutation of the rows,
    and a batch may span two epochs. With several processes, each takes its share of every batch.

    Args:
        size: Number of rows of the dataset.
        batch_size: Rows of a batch, over all processes.
        stop: Number of batches.
        seed: Seed of the permutations.
        rank: Number of this process.
        world: Number of processes.
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


_VALIDATED = 256  # samples of a validation batch


def limited(batches: list[list[int]], limit: float | None) -> list[list[int]]:
    """Return the first batches: so many as ``limit``, or a share of at most 1; None returns all."""
    if limit is None or (limit == 1.0 and isinstance(limit, float)):
        return batches
    return batches[: max(1, int(limit * len(batches))) if isinstance(limit, float) and limit < 1 else int(limit)]


def in_order(size: int, batch_size: int) -> list[list[int]]:
    """Return batches that hold the rows 0..``size`` - 1 once each, in order, for evaluation."""
    return [list(range(start, min(start + batch_size, size))) for start in range(0, size, batch_size)]


def even_batches(rows: Sequence[int], size: int, least: bool = False) -> list[list[int]]:
    """Split rows into batches of at most ``size`` rows, or of at least ``size`` rows with ``least``.

    The batches' sizes differ by at most one.
    """
    return split_evenly(rows, max(1, len(rows) // size) if least else -(-len(rows) // size))


def split_evenly(rows: Sequence[int], count: int) -> list[list[int]]:
    """Split rows into ``count`` batches whose sizes differ by at most one."""
    return [part.tolist() for part in np.array_split(np.asarray(rows, np.int64), count)]


class Batches(pl.LightningDataModule):
    """Lightning data module whose training batches depend on the step.

    A resumed run continues with the batch that it would have seen next.

    Args:
        train: Training dataset, indexed by a list of rows.
        val: Validation dataset.
        batch_size: Rows of a training batch, over all processes.
        max_steps: Number of training steps.
        seed: Seed of the order of the rows.
        accumulated: Number of batches of a step.
        workers: Number of processes that read training batches; 0: this one does.
        limit: Number of validation batches, or their share; None: all.
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any],
        batch_size: int,
        max_steps: int,
        seed: int,
        accumulated: int = 1,
        workers: int = 0,
        limit: float | None = None,
    ):
        super().__init__()
        self.train, self.val = train, val
        self.sizes = len(train), len(val)  # type: ignore[arg-type]
        self.batch_size, self.seed = batch_size, seed
        self.max_steps, self.accumulated, self.workers, self.limit = max_steps, accumulated, workers, limit

    def train_dataloader(self) -> ReadAhead[Any]:
        """Return the loader of the batches from the trainer's current step on, which a thread reads ahead."""
        trainer = self.trainer
        assert trainer is not None
        stop = self.max_steps * self.accumulated
        sampler = StepSampler(self.sizes[0], self.batch_size, stop, self.seed, trainer.global_rank, trainer.world_size)
        sampler.start = trainer.global_step * self.accumulated
        loader: DataLoader[Any] = DataLoader(self.train, sampler=sampler, batch_size=None, num_workers=self.workers)
        return ReadAhead(loader, pin=trainer.strategy.root_device.type == "cuda")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this process's validation samples.

        All processes have the same number of batches, because they exchange values after each.
        """
        trainer = self.trainer
        assert trainer is not None
        batches = limited(in_order(self.sizes[1], _VALIDATED), self.limit)
        if trainer.world_size > 1:
            rows = list(range(sum(map(len, batches))))
            of_each = min(-(-len(batches) // trainer.world_size), len(rows) // trainer.world_size)
            if not of_each:
                raise UserError(
                    f"{len(rows)} validation samples cannot be shared out among {trainer.world_size} processes; give "
                    "fewer, or more validation samples"
                )
            batches = split_evenly(rows, of_each * trainer.world_size)[trainer.global_rank :: trainer.world_size]
        return DataLoader(self.val, sampler=batches, batch_size=None)
