"""Records on disk: first a part for each batch, and at the end of the run one file for each table.

A part is the set of files of one batch, one per table. The file of the table ``samples`` is written last, and a part
counts as finished if this file is readable; so a killed process never leaves a part that looks finished but is not. The
same records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmapper.errors import UserError
from clipmapper.files import write_atomic
from perturbation.measures.base import SAMPLES

FOLDER = "parts"

Tables = dict[str, list[pa.Table]]  #: records by the name of their table


def write_part(run: Path, number: int, tables: Tables) -> None:
    """Write the records of a batch, one file per table that has rows, and always one for the table ``samples``.

    Raises:
        OSError: The disk is full. Parts that were written before stay.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for name in _samples_last({SAMPLES, *(name for name, found in tables.items() if found)}):
        write_atomic(_part_file(folder, number, name), parquet(tables.get(name, [])))


def finished(run: Path, count: int) -> list[int]:
    """Return the numbers below ``count`` whose part is finished and readable."""
    return [number for number in range(count) if _is_readable(_part_file(run / FOLDER, number, SAMPLES))]


def copy_parts(source: Path, run: Path) -> None:
    """Copy the parts of another run folder that ``run`` does not have."""
    (run / FOLDER).mkdir(exist_ok=True)
    for name in _table_names(source):
        for file in sorted((source / FOLDER).glob(f"part-*.{name}.parquet")):
            if not (run / FOLDER / file.name).exists():
                write_atomic(run / FOLDER / file.name, file.read_bytes())


def merge(run: Path, count: int) -> dict[str, pa.Table]:
    """Join all parts in the order of their numbers, write each table to ``{table}.parquet`` and return the tables.

    A table without rows is left out.

    Raises:
        UserError: A part is missing, or no part has a sample.
    """
    missing = sorted(set(range(count)) - set(finished(run, count)))
    if missing:
        raise UserError(f"{run}: part {missing[0]} is missing; continue the run with resume={run}")
    merged = {}
    for name in _table_names(run):
        files = [_part_file(run / FOLDER, number, name) for number in range(count)]
        tables = [table for file in files if file.exists() and (table := pq.read_table(file)).num_rows]
        if tables:
            content = parquet(tables)
            write_atomic(run / f"{name}.parquet", content)
            merged[name] = pq.read_table(BytesIO(content))
    if SAMPLES not in merged:
        raise UserError(f"{run}: no image of the chosen samples is readable; check the image folder in data.root")
    return merged


def parquet(tables: Sequence[pa.Table]) -> bytes:
    """Return one Parquet file with the rows of all tables, which must have the same columns."""
    content = BytesIO()
    table = pa.concat_tables(tables) if tables else pa.table({})
    pq.write_table(table.combine_chunks(), content, compression="zstd")
    return content.getvalue()


def _part_file(folder: Path, number: int, table: str) -> Path:
    return folder / f"part-{number:06d}.{table}.parquet"


def _samples_last(names: Iterable[str]) -> list[str]:
    """Return the names in alphabetical order, with the table ``samples`` last."""
    return sorted(names, key=lambda name: (name == SAMPLES, name))


def _table_names(run: Path) -> list[str]:
    """Return the names of the tables that have parts."""
    return _samples_last({file.name.split(".")[1] for file in (run / FOLDER).glob("part-*.*.parquet")})


def _is_readable(file: Path) -> bool:
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid):
        return False
    return True
