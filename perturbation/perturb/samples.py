"""The choice of the split and of its samples."""

from __future__ import annotations

import numpy as np

from clipmapper.errors import UserError
from perturbation.config import PerturbBaseConfig


def sample_rows(count: int, samples: int | None, seed: int, what: str = "questions") -> list[int]:
    """Draw ``samples`` of ``count`` rows without replacement and return them in rising order.

    Args:
        count: Number of rows to draw from.
        samples: Number of rows to draw; None takes all of them.
        seed: Seed of the draw.
        what: Word for the rows in the error message.

    Raises:
        UserError: There are fewer than ``samples`` rows.
    """
    if samples is None:
        return list(range(count))
    if samples > count:
        raise UserError(f"samples={samples}: the split has {count} {what}; give samples={count} or null")
    return sorted(np.random.default_rng(seed).permutation(count)[:samples].tolist())


def split_of(config: PerturbBaseConfig) -> str:
    """Return the split of the config, but ``val`` instead of ``test`` for data whose config names no test split."""
    named = getattr(config.data, "test_split", "test") is not None or getattr(config.data, "karpathy", None) is not None
    return config.split if named or config.split != "test" else "val"
