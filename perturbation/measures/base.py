"""What a measure is: it asks for token subsets, records what the model says of them, and reports.

A measure is one file here with a config of the same name in ``configs/measure``; one of a user's own lies anywhere that
Python finds, with its config in the folder given by ``--config-dir``. It sees scores, subsets and outputs alone, so it
works for every task and every model that has a ``Reader``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from numpy.typing import NDArray

from perturbation.arrays import Array, Mask
from perturbation.removal.reader import Modality, Read, SubsetOutputs, Subsets

SAMPLES = "samples"  #: the table of the areas, which every run has
EFFECTS = "faithfulness"  #: the table of what single tokens and top shares do
Name = tuple[Any, ...]  #: of a request, of the measure's own choice
FULL: Name = ("full",)  #: of the request for the samples as they are


class ScoredBy(NamedTuple):
    """An explainer under test; ``seed`` tells random orders apart, and is 0 for all others."""

    name: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.name} (seed {self.seed})" if self.seed else self.name


@dataclass(frozen=True, eq=False)
class TokenScores:
    """One modality's tokens: the patches, or the text stream with its padding.

    Attributes:
        removable: bool [B, n]; false at padding and at tokens that always stay.
        scores: [B, n], by explainer; finite where a token is removable.
    """

    removable: Mask
    scores: Mapping[ScoredBy, Array]


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """B samples with the scores of their tokens.

    Attributes:
        kind: what a sample is called, ``question`` or ``image``; tables name it in the column ``{kind}_id``.
        ids: B of them.
        said: the column of tables that holds what the model says.
        tokens: by modality; those that are tested.
        start: how many samples the batches before this one hold.
    """

    kind: str
    ids: Sequence[int]
    said: str
    tokens: Mapping[Modality, TokenScores]
    start: int = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows of one table, one a sample.

    Rows of the same table, ``about`` and ``places`` are the same rows: two measures may give different columns of them.

    Attributes:
        table: the file is ``{table}.parquet``.
        about: the columns in which they are all alike.
        columns: the others: numbers [R], or numbers or strings [R, M].
        places: whose rows they are, R places in the batch; None is all of them.
    """

    table: str
    about: Mapping[str, str | int]
    columns: Mapping[str, NDArray[Any]]
    places: Sequence[int] | None = None


class Measure(ABC):
    """Subclasses take their options, which their YAML names, in ``__init__`` and refuse bad ones with ``UserError``."""

    @abstractmethod
    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """The subsets to read, by name.

        All measures' subsets of a batch are read together in one pass. ``read`` reads some at once, for measures whose
        next subset depends on what the model says of the last.
        """

    @abstractmethod
    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """What is kept of each sample.

        Args:
            batch: the samples.
            outputs: what the model says of the subsets, by the names that ``ask`` gave them and in their order.
        """

    @abstractmethod
    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """What ``perturbation.json`` says of all samples, by key; numbers that are not defined are NaN.

        Args:
            tables: the records of the whole run, by table; a table without rows is left out.
            run: the run folder, into which a measure writes its own tables and figures.
        """


def about_row(modality: str, scored_by: ScoredBy, **more: str | int) -> dict[str, str | int]:
    """The columns that say whose scores a row is about."""
    return {"modality": modality, "explainer": scored_by.name, "seed": scored_by.seed, **more}
