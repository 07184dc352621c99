"""The result of a test: tables, figures and files."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from PIL import Image

from clipmapper.files import finite, write_atomic, write_json
from clipmapper.storage.tables import parquet
from explain.figures.saving import png
from perturbation.measures.base import Measure
from perturbation.perturb.results import reports
from perturbation.report.figures import curve_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_WIDTH = 740  # pixels of the curves in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Tested:
    """The result of :func:`perturbation.test`; a notebook shows its table and its curves."""

    content: Mapping[str, Any]  #: as in ``perturbation.json``: ``rows``, ``gaps`` and the entries of other measures
    records: Mapping[str, pa.Table]  #: the values of every sample, by the name of their table
    files: TemporaryDirectory[str]  #: the files that :meth:`save` copies

    def __repr__(self) -> str:
        return self.table.to_string(float_format="{:.1f}".format, na_rep="–")

    def _repr_html_(self) -> str:
        table = self.table.to_html(float_format="{:.1f}".format, na_rep="–")
        with Image.open(BytesIO(png(self.plot()))) as image:
            small = image.convert("RGB")
        small.thumbnail((SHOWN_WIDTH, 4 * SHOWN_WIDTH))
        file = BytesIO()
        small.quantize(64).save(file, "png", optimize=True)
        curves = base64.b64encode(file.getvalue()).decode()
        alt = f"{self.values[0]} over the share of removed tokens"
        return f'<div>{table}<img src="data:image/png;base64,{curves}" alt="{escape(alt)}"></div>'

    @property
    def table(self) -> pd.DataFrame:
        """The areas under the main value's curves and their gap, in percent.

        A row is an explainer. The columns are the modality, and ``positive`` (smaller is better), ``negative`` and
        ``gap`` (larger is better), ``gap_low`` and ``gap_high`` (95 % interval).
        """
        value = self.values[0]
        cells: dict[str, dict[tuple[str, str], float]] = {}
        for row in self.content["rows"]:
            cells.setdefault(row["explainer"], {})[row["modality"], row["direction"]] = row["auc"]
        for row in self.content["gaps"]:
            if row["measure"] == value:
                own = cells[row["explainer"]]
                own[row["modality"], "gap"] = row["gap"]
                own[row["modality"], "gap_low"], own[row["modality"], "gap_high"] = row["gap_ci95"]
        frame = pd.DataFrame.from_dict(cells, orient="index")
        order = [*dict.fromkeys(row["direction"] for row in self.content["rows"]), "gap", "gap_low", "gap_high"]
        modalities = dict.fromkeys(row["modality"] for row in self.content["rows"])
        frame = frame[[(modality, area) for modality in modalities for area in order]]
        frame.columns = pd.MultiIndex.from_tuples(frame.columns, names=["modality", "area"])
        frame.index.name = f"explainer ({value})"
        return frame

    @property
    def comparisons(self) -> pd.DataFrame:
        """The differences of the main value's gaps between two explainers on the same samples, in percent.

        ``difference`` is the gap of ``first`` minus that of ``second``, ``low`` and ``high`` are its 95 % interval, and
        ``p`` is that of a paired permutation test with Holm's correction.
        """
        rows = json.loads((Path(self.files.name) / "comparisons.json").read_text(encoding="utf-8"))
        chosen = [row for row in rows if (row["measure"], row["direction"]) == (self.values[0], "gap")]
        found = [
            {
                **{key: row[key] for key in ("modality", "first", "second", "difference")},
                "low": row["ci95"][0],
                "high": row["ci95"][1],
                "p": row["p_holm"],
            }
            for row in chosen
        ]
        return pd.DataFrame(found, columns=["modality", "first", "second", "difference", "low", "high", "p"])

    @property
    def values(self) -> Sequence[str]:
        """Names of the values, such as ``accuracy`` and ``probability``; the first one is the main value."""
        return list(dict.fromkeys(row["measure"] for row in self.content["gaps"]))

    def plot(self, value: str | None = None) -> Figure:
        """Draw the curves of a value, by default of the main one, with 95 % bands."""
        return curve_figure(self.content["rows"], self.values[0] if value is None else value)

    def save(self, folder: str | Path) -> Path:
        """Write the tables, figures and the values of every sample to a folder, as ``scripts/perturb.py`` does."""
        shutil.copytree(self.files.name, folder, dirs_exist_ok=True)
        return Path(folder)


def tested(records: Mapping[str, pa.Table], measures: Mapping[str, Measure], about: Mapping[str, Any]) -> Tested:
    """Return the reports of all measures; ``about`` is added to ``perturbation.json``."""
    files = TemporaryDirectory(prefix="perturbation-")
    folder = Path(files.name)
    content = reports(folder, records, measures) | finite(about)
    for name, table in records.items():
        write_atomic(folder / f"{name}.parquet", parquet([table]))
    write_json(folder / "perturbation.json", content)
    return Tested(content, records, files)
