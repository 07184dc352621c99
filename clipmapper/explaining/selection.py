"""Which samples of a split are explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from clipmapper.config.explain import PictureConfig
from clipmapper.data.images import BadImage
from clipmapper.errors import UserError

_Batch = TypeVar("_Batch")


def rows_of_ids(known: Sequence[int], config: PictureConfig, what: str) -> list[int]:
    """Where the ids that the config names stand among the known; raises ``UserError`` for unknown ones."""
    row_of = {each: row for row, each in enumerate(known)}
    wanted = list(dict.fromkeys(config.ids))
    if unknown := [str(i) for i in wanted if i not in row_of]:
        first = ", ".join(map(str, known[:3]))
        raise UserError(f"ids: the {config.split} split has no {what} {', '.join(unknown)}; it has {first}, …")
    return [row_of[i] for i in wanted]


def drawn_order(total: int, config: PictureConfig, what: str) -> list[int]:
    """All rows in an order that the seed draws; raises ``UserError`` where the config asks for more samples."""
    if config.samples > total:
        raise UserError(f"samples={config.samples}: the {config.split} split has {total} {what}; give fewer")
    return np.random.default_rng(config.seed).permutation(total).tolist()


def readable(read: Callable[[Sequence[int]], _Batch | None], rows: Sequence[int]) -> Iterator[_Batch]:
    """One batch of the rows; where a picture ends the run, those before it come first."""
    try:
        batches = iter([read(rows)])
    except BadImage:
        batches = (read([row]) for row in rows)
    yield from (batch for batch in batches if batch is not None)
