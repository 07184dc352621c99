"""The metrics of every sample and explainer as a table on disk, from which the tables of means can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipmapper.files import write_atomic
from clipmapper.storage.tables import parquet, read_table
from perturbation.arrays import Array
from perturbation.localise.metrics import METRICS

Values = Mapping[str, Mapping[str, Array]]  #: [samples, metrics] by modality and explainer
_COLUMNS = dict.fromkeys(("kind", "modality", "explainer"), pa.string()) | dict.fromkeys(METRICS, pa.float64())


def write_samples(path: Path, key: str, ids: Sequence[int], kinds: Sequence[str], values: Values) -> None:
    """Write one row per modality, explainer and sample.

    Args:
        path: The Parquet file.
        key: Name of the column of ids: ``question_id`` or ``image_id``.
        ids: The id of each sample, [samples]; the words of a caption have the same one.
        kinds: The kind of each sample, [samples].
        values: The metrics in the order of ``METRICS``, [samples, metrics] by modality and explainer.
    """
    tables = [
        pa.table(
            {
                key: pa.array(ids, pa.int64()),
                "kind": list(kinds),
                "modality": [modality] * len(ids),
                "explainer": [name] * len(ids),
                **dict(zip(METRICS, metrics.T, strict=True)),
            }
        )
        for modality, columns in values.items()
        for name, metrics in columns.items()
    ]
    write_atomic(path, parquet(tables))


def read_samples(path: Path) -> tuple[NDArray[np.int64], list[str], dict[str, dict[str, Array]]]:
    """Read what :func:`write_samples` wrote: the ids, the kinds, and the metrics by modality and explainer.

    Raises:
        UserError: The file is missing, damaged, or has other columns.
    """
    table = read_table(path, _COLUMNS).to_pandas()
    values: dict[str, dict[str, Array]] = {}
    for (modality, name), rows in table.groupby(["modality", "explainer"], sort=False):
        values.setdefault(modality, {})[name] = rows[list(METRICS)].to_numpy(np.float64)
    samples = table[: len(table) // sum(map(len, values.values()))]
    return samples.iloc[:, 0].to_numpy(np.int64), samples["kind"].tolist(), values
