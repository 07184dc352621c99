"""The base class of all measures, and the data that a measure receives and returns.

A measure asks for token subsets, records the model's outputs for them, and reports on all samples. It sees only scores,
subsets and outputs, so it works for every task and every model that has a
:class:`~perturbation.removal.reader.Reader`. See :mod:`perturbation.measures` for how to add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perturbation.arrays import Array, Mask
from perturbation.removal.order import draw_ties
from perturbation.removal.reader import Modality, Read, SubsetOutputs, Subsets

SAMPLES = "samples"  #: name of the table of the measure ``areas``, which every run has
EFFECTS = "faithfulness"  #: name of the table that the measures ``faithfulness`` and ``eraser`` share
Name = tuple[Any, ...]  #: key of a request, chosen by the measure
FULL: Name = ("full",)  #: key of the request for the samples with nothing removed


class ScoredBy(NamedTuple):
    """Name of an explainer under test, a seed that distinguishes its random orders, and whether it is a control.

    The seed is 0 if the explainer draws nothing.
    """

    name: str
    seed: int = 0
    control: bool = False

    def __str__(self) -> str:
        return f"{self.name} (seed {self.seed})" if self.seed else self.name


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of the n tokens of one modality: the patches, or the text stream with its padding.

    Attributes:
        removable: bool [B, n]; False for padding and for tokens that are never removed.
        scores: [B, n] by explainer; finite for every removable token.
    """

    removable: Mask
    scores: Mapping[ScoredBy, Array]


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """A batch of B explained samples.

    Attributes:
        kind: Kind of sample, ``question`` or ``image``; its ids are in the column ``{kind}_id`` of the tables.
        ids: B ids.
        said: Name of the column that contains the model's output: ``answers`` or ``captions``.
        tokens: Scores by modality, for the modalities under test.
        start: Number of samples in the batches before this one.
        seed: Seed of the random order of equal scores.
        partners: Id of each sample's partner, for the explainers that use the weights of one.
    """

    kind: str
    ids: Sequence[int]
    said: str
    tokens: Mapping[Modality, TokenScores]
    start: int = 0
    seed: int = 0
    partners: Mapping[ScoredBy, Mapping[int, int]] = field(default_factory=dict)

    def ties(self, modality: Modality) -> Array:
        """Return the numbers that order the equal scores of a modality, [B, n], the same for every explainer."""
        return draw_ties(self.seed, self.ids, modality, self.tokens[modality].removable.shape[1])

    def partner_ids(self, scored_by: ScoredBy) -> NDArray[np.int64]:
        """Return the id of each sample's partner, a masked array [B]; all are masked for an explainer without."""
        partners = self.partners.get(scored_by, {})
        ids = [partners.get(each, 0) for each in self.ids]
        return np.ma.array(ids, dtype=np.int64, mask=[each not in partners for each in self.ids])


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows of one table, one row per sample.

    Two measures may add columns to the same rows: ``Rows`` with equal ``table``, ``about`` and ``places`` are joined.

    Attributes:
        table: Name of the table; its file is ``{table}.parquet``.
        about: Columns that have the same value in all R rows.
        columns: The other columns: numbers [R], or numbers or strings [R, M].
        places: R indices of samples in the batch; None means all samples.
    """

    table: str
    about: Mapping[str, str | int]
    columns: Mapping[str, NDArray[Any]]
    places: Sequence[int] | None = None


class Measure(ABC):
    """Base class of the measures.

    A subclass takes the options of its YAML file as arguments of ``__init__``, which raises ``UserError`` for a wrong
    value. :class:`perturbation.measures.eraser.Eraser` is a complete example.

    For every batch, ``ask`` is called first, then the model reads the subsets of all measures in one pass, then
    ``record`` is called with the outputs. ``report`` is called once, at the end of the run.
    """

    @abstractmethod
    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Return the token subsets that the model should read, by a key of the measure's choice.

        Args:
            batch: The samples and the scores of their tokens.
            read: A function that runs the model on subsets immediately. It is only needed by a measure whose next
                subsets depend on the model's outputs for earlier ones.
        """

    @abstractmethod
    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Return what to store for each sample.

        Args:
            batch: The samples, the same as in ``ask``.
            outputs: The model's outputs for the subsets, by the keys that ``ask`` returned and in the same order.
        """

    @abstractmethod
    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return the entries of ``perturbation.json`` that this measure adds; undefined numbers are NaN.

        Args:
            tables: The records of the whole run by table name; a table without rows is missing.
            run: The run folder, where a measure may write tables and figures.
        """


def about_row(modality: str, scored_by: ScoredBy, **more: str | int) -> dict[str, str | int]:
    """Return the columns that identify the scores of a row: modality, explainer, seed, and ``more``."""
    return {"modality": modality, "explainer": scored_by.name, "seed": scored_by.seed, **more}
