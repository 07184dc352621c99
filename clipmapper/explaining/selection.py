"""Selection of the samples of a split that are explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from clipmapper.config.explain import BasePictureConfig
from clipmapper.data.images import BadImage
from clipmapper.errors import UserError

_Batch = TypeVar("_Batch")


def rows_of_ids(known: Sequence[int], config: BasePictureConfig, what: str) -> list[int]:
    """Return the row of each id that the config names.

    Args:
        known: Id of each row.
        config: The command's config.
        what: Noun for a sample in the error message.

    Raises:
        UserError: An id is unknown.
    """
    row_of = {each: row for row, each in enumerate(known)}
    chosen = list(dict.fromkeys(config.ids))
    if unknown := [str(i) for i in chosen if i not in row_of]:
        first = ", ".join(map(str, known[:3]))
        raise UserError(f"ids: the {config.split} split has no {what} {', '.join(unknown)}; it has {first}, …")
    return [row_of[i] for i in chosen]


def drawn_rows(total: int, config: BasePictureConfig, what: str) -> list[int]:
    """Return all rows in a random order that depends on the config's seed.

    Args:
        total: Number of rows.
        config: The command's config.
        what: Plural noun for samples in the error message.

    Raises:
        UserError: The config requests more samples than there are rows.
    """
    if config.samples > total:
        raise UserError(f"samples={config.samples}: the {config.split} split has {total} {what}; give fewer")
    return np.random.default_rng(config.seed).permutation(total).tolist()


def readable(read: Callable[[Sequence[int]], _Batch | None], rows: Sequence[int]) -> Iterator[_Batch]:
    """Yield the rows as one batch.

    If an image can't be read, the rows are yielded one by one instead, so that those before it are processed before
    ``BadImage`` ends the run.
    """
    try:
        batches = iter([read(rows)])
    except BadImage:
        batches = (read([row]) for row in rows)
    yield from (batch for batch in batches if batch is not None)
