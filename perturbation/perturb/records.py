"""The records of one batch: all measures ask for subsets, the model runs once, and every measure records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipmapper.errors import UserError
from perturbation.measures.base import ExplainedBatch, Measure, Rows
from perturbation.perturb.parts import Tables
from perturbation.removal.reader import Reader, SubsetOutputs, Subsets, read_together

Samples = TypeVar("Samples")
Asked = TypeVar("Asked")


def record_batch(
    measures: Mapping[str, Measure],
    batch: ExplainedBatch,
    reader: Reader[Samples, Asked],
    samples: Samples,
    asked: Asked,
) -> Tables:
    """Run the model on the subsets of all measures and return the measures' records by table.

    Args:
        measures: Measures by name.
        batch: The explained samples.
        reader: The reader of the model.
        samples: The same samples in the form that the reader takes.
        asked: The outputs that the reader's values are about, such as the predicted answers.

    Raises:
        UserError: The score of a removable token is NaN or infinite, the reader refuses a subset, or two measures
            record different values in the same column of the same table.
    """

    def read(subsets: Subsets) -> SubsetOutputs:
        return reader.read(samples, subsets, asked)

    _check_scores(batch)
    requests = {(key, name): each for key, m in measures.items() for name, each in m.ask(batch, read).items()}
    outputs = read_together(read, requests)
    rows: list[tuple[str, Rows]] = []
    for key, measure in measures.items():
        own = {name: each for (of, name), each in outputs.items() if of == key}
        rows += [(key, each) for each in measure.record(batch, own)]
    return _tables(batch, rows)


def _check_scores(batch: ExplainedBatch) -> None:
    """Raise UserError with the explainer and the sample if a removable token's score is NaN or infinite."""
    for modality, tokens in batch.tokens.items():
        for scored_by, scores in tokens.scores.items():
            broken = np.argwhere(tokens.removable & ~np.isfinite(scores))
            if len(broken):
                sample, token = broken[0]
                raise UserError(
                    f"explainer={scored_by}: {modality} token {token} of {batch.kind} {batch.ids[sample]} scores "
                    f"{scores[sample, token]}, which cannot be ranked; leave this explainer out, or fix it"
                )


def _tables(batch: ExplainedBatch, rows: Sequence[tuple[str, Rows]]) -> Tables:
    """Return the rows of the measures by table; columns of the same rows are joined.

    Several measures may record the same column, such as the response to the full sample, if its values are the same.
    """
    joined: dict[tuple[Any, ...], dict[str, NDArray[Any]]] = {}
    for measure, each in rows:
        places = tuple(range(len(batch.ids)) if each.places is None else each.places)
        columns = joined.setdefault((each.table, places, tuple(each.about.items())), {})
        for name, values in each.columns.items():
            first = columns.setdefault(name, values)
            if not np.array_equal(first, values, equal_nan=first.dtype.kind == "f"):
                raise UserError(
                    f"measure={measure}: another measure records other values in column {name} of table {each.table}; "
                    "give this measure a table or a column with another name"
                )
    tables: Tables = {}
    for (name, places, about), columns in joined.items():
        ids = pa.array([batch.ids[place] for place in places])
        constant = {key: pa.array([value] * len(places)) for key, value in about}
        given = {key: _column(values) for key, values in columns.items()}
        tables.setdefault(name, []).append(pa.table({f"{batch.kind}_id": ids, **constant, **given}))
    return tables


def _column(values: NDArray[Any]) -> pa.Array:
    """Return the values [B] as a column of numbers, or [B, M] as a column of B lists."""
    if values.ndim == 1:
        return pa.array(values)
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(values.ravel()))
