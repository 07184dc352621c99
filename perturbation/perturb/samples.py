"""Which samples of a split are tested."""

from __future__ import annotations

import numpy as np

from clipmapper.errors import UserError
from perturbation.config import PerturbBaseConfig


def sample_rows(count: int, samples: int | None, seed: int, what: str = "questions") -> list[int]:
    """Rows drawn from ``count`` without replacement, in rising order; all of them where ``samples`` is None.

    Raises ``UserError`` where there are fewer than ``samples``; ``what`` is how its message calls them.
    """
    if samples is None:
        return list(range(count))
    if samples > count:
        raise UserError(f"samples={samples}: the split has {count} {what}; give samples={count} or null")
    return sorted(np.random.default_rng(seed).permutation(count)[:samples].tolist())


def split_of(config: PerturbBaseConfig) -> str:
    """``test``, or ``val`` for data whose test split is not named (others always have one)."""
    named = getattr(config.data, "test_split", "test") is not None or getattr(config.data, "karpathy", None) is not None
    return config.split if named or config.split != "test" else "val"
