"""Records on disk: first a part for each batch, and at the end of the run one file for each table.

A part is the set of files of one batch, one per table. The file of the table ``samples`` is written last and names the
others; a part counts as finished if all of them have the content that was written
(:mod:`clipmapper.storage.tables`). So a killed process never leaves a part that looks finished but is not, and a
damaged part is computed again. The same records give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmapper.errors import UserError
from clipmapper.files import read_bytes, write_atomic
from clipmapper.storage.tables import parquet, verified
from perturbation.measures.base import SAMPLES

FOLDER = "parts"
_TABLES = "tables"  # key of the metadata of the samples: the names of the tables of the part

Tables = dict[str, list[pa.Table]]  #: records by the name of their table


def write_part(run: Path, number: int, tables: Tables) -> None:
    """Write the records of a batch, one file per table that has rows, and always one for the table ``samples``.

    Raises:
        OSError: The disk is full. Parts that were written before stay.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    names = _samples_last({SAMPLES, *(name for name, found in tables.items() if found)})
    for name in names:
        about = {_TABLES: " ".join(names)} if name == SAMPLES else {}
        write_atomic(_part_file(folder, number, name), parquet(tables.get(name, []), about))


def finished(run: Path, numbers: Iterable[int]) -> list[int]:
    """Return those of the numbers whose part is finished; damaged parts are named on stderr."""
    return [number for number in numbers if _read_part(run, number) is not None]


def missing(run: Path, count: int) -> list[int]:
    """Return the numbers below ``count`` whose part is not finished; damaged parts are named on stderr."""
    return sorted({*range(count)} - {*finished(run, range(count))})


def copy_parts(source: Path, run: Path) -> None:
    """Copy the parts of another run folder that ``run`` does not have."""
    (run / FOLDER).mkdir(exist_ok=True)
    for name in _table_names(source):
        for file in sorted((source / FOLDER).glob(f"part-*.{name}.parquet")):
            if not (run / FOLDER / file.name).exists():
                write_atomic(run / FOLDER / file.name, read_bytes(file, "Parquet"))


def merge(run: Path, count: int) -> dict[str, pa.Table]:
    """Join all parts in the order of their numbers, write each table to ``{table}.parquet`` and return the tables.

    A table without rows is left out.

    Raises:
        UserError: A part is missing or damaged, or no part has a sample.
    """
    parts = [_read_part(run, number) for number in range(count)]
    if None in parts:
        raise UserError(f"{run}: part {parts.index(None)} is missing; continue the run with resume={run}")
    merged = {}
    for name in _table_names(run):
        tables = [part[name] for part in parts if part and name in part and part[name].num_rows]
        if tables:
            content = parquet(tables)
            write_atomic(run / f"{name}.parquet", content)
            merged[name] = pq.read_table(BytesIO(content))
    if SAMPLES not in merged:
        raise UserError(f"{run}: no image of the chosen samples is readable; check the image folder in data.root")
    return merged


def _part_file(folder: Path, number: int, table: str) -> Path:
    return folder / f"part-{number:06d}.{table}.parquet"


def _samples_last(names: Iterable[str]) -> list[str]:
    """Return the names in alphabetical order, with the table ``samples`` last."""
    return sorted(names, key=lambda name: (name == SAMPLES, name))


def _table_names(run: Path) -> list[str]:
    """Return the names of the tables that have parts."""
    return _samples_last({file.name.split(".")[1] for file in (run / FOLDER).glob("part-*.*.parquet")})


def _read_part(run: Path, number: int) -> dict[str, pa.Table] | None:
    """Return the tables of a part, or None if it is not finished; damage is reported on stderr."""
    last = _part_file(run / FOLDER, number, SAMPLES)
    if not last.exists():
        return None
    try:
        samples, about = verified(last)
        names = about.get(_TABLES, "").split()
        others = {name: verified(_part_file(run / FOLDER, number, name))[0] for name in names if name != SAMPLES}
    except UserError as error:
        print(f"part {number} is damaged and is computed again: {error}", file=sys.stderr)
        return None
    return {**others, SAMPLES: samples}
