"""Records on disk: a part for every batch, written as it comes, and one file for each table in the end.

A part counts as finished once its file of samples exists; that file is written last, so a process that is killed leaves
whole parts. The same records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmapper.errors import UserError
from clipmapper.files import write_whole
from perturbation.measures.base import SAMPLES

FOLDER = "parts"

Tables = dict[str, list[pa.Table]]  #: by the name of the table


def write_part(run: Path, number: int, tables: Tables) -> None:
    """Writes the records of a batch; a table without rows has no file, but samples always have one.

    Raises ``OSError`` where the disk is full; what is there already stays.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for name in _samples_last({SAMPLES, *(name for name, found in tables.items() if found)}):
        write_whole(_part(folder, number, name), parquet(tables.get(name, [])))


def finished(run: Path, count: int) -> list[int]:
    """The numbers below ``count`` whose part is there and can be read."""
    return [number for number in range(count) if _readable(_part(run / FOLDER, number, SAMPLES))]


def copy_parts(source: Path, run: Path) -> None:
    """Copies the parts of another run folder; those that can't be read are left."""
    (run / FOLDER).mkdir(exist_ok=True)
    for file in (file for name in _names(source) for file in sorted((source / FOLDER).glob(f"part-*.{name}.parquet"))):
        if not (run / FOLDER / file.name).exists():
            write_whole(run / FOLDER / file.name, file.read_bytes())


def merge(run: Path, count: int) -> dict[str, pa.Table]:
    """All parts in order, written as ``{table}.parquet``; a table without rows is left out.

    Raises ``UserError`` where a part is missing or no part has a sample.
    """
    missing = sorted(set(range(count)) - set(finished(run, count)))
    if missing:
        raise UserError(f"{run}: part {missing[0]} is missing; go on with resume={run}")
    merged = {}
    for name in _names(run):
        files = [_part(run / FOLDER, number, name) for number in range(count)]
        tables = [table for file in files if file.exists() and (table := pq.read_table(file)).num_rows]
        if tables:
            content = parquet(tables)
            write_whole(run / f"{name}.parquet", content)
            merged[name] = pq.read_table(BytesIO(content))
    if SAMPLES not in merged:
        raise UserError(f"{run}: no picture of the chosen questions could be read; check the image folder in data.root")
    return merged


def parquet(tables: Sequence[pa.Table]) -> bytes:
    """Tables of the same columns, one below the other, as one file."""
    content = BytesIO()
    table = pa.concat_tables(tables) if tables else pa.table({})
    pq.write_table(table.combine_chunks(), content, compression="zstd")
    return content.getvalue()


def _part(folder: Path, number: int, table: str) -> Path:
    return folder / f"part-{number:06d}.{table}.parquet"


def _samples_last(names: Iterable[str]) -> list[str]:
    """The order in which tables are written."""
    return sorted(names, key=lambda name: (name == SAMPLES, name))


def _names(run: Path) -> list[str]:
    """The tables of which there are parts."""
    return _samples_last({file.name.split(".")[1] for file in (run / FOLDER).glob("part-*.*.parquet")})


def _readable(file: Path) -> bool:
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid):
        return False
    return True
