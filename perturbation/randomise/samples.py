"""The correlation of every sample as a table on disk, from which the curves can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipmapper.files import write_atomic
from clipmapper.storage.tables import parquet, read_table
from perturbation.arrays import Array

Curves = dict[tuple[str, str], dict[str, Array]]  #: [samples] by (modality, explainer) and by the last random layer
_COLUMNS = dict.fromkeys(("modality", "explainer", "layer"), pa.string()) | {"correlation": pa.float64()}


def write_samples(path: Path, ids: Sequence[int], curves: Mapping[tuple[str, str], Mapping[str, Array]]) -> None:
    """Write one row per curve, layer and sample; ``ids`` are those of the questions or images, [samples]."""
    tables = [
        pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "modality": [modality] * len(ids),
                "explainer": [explainer] * len(ids),
                "layer": [layer] * len(ids),
                "correlation": values,
            }
        )
        for (modality, explainer), curve in curves.items()
        for layer, values in curve.items()
    ]
    write_atomic(path, parquet(tables))


def read_samples(path: Path) -> Curves:
    """Read the correlations that :func:`write_samples` wrote.

    Raises:
        UserError: The file is missing, damaged, or has other columns.
    """
    table = read_table(path, _COLUMNS).to_pandas()
    groups = table.groupby(["modality", "explainer", "layer"], sort=False)["correlation"]
    curves: Curves = {}
    for (modality, explainer, layer), values in groups:
        curves.setdefault((modality, explainer), {})[layer] = values.to_numpy(np.float64)
    return curves
