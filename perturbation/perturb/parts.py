"""Records on disk: first a part for each batch, and at the end of the run one file for each table.

A part is the set of files of one batch, one per table. The file of the table ``samples`` is written last and names the
others; a part counts as finished if all of them have the content that was written
(:mod:`clipmapper.storage.tables`). So a killed process never leaves a part that looks finished but is not, and a
damaged part is computed again. The same records give the same bytes. Each file holds the name of its run and the number
of its part, so that a file of another run, or of another part, is refused.
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
from perturbation.perturb.stored import RUN, name_of_run

FOLDER = "parts"
_TABLES = "tables"  # key of the metadata of the samples: the names of the tables of the part
_NUMBERED = "part-" + 6 * "[0-9]"  # beginning of the names of the files
_PART = "part"  # key of the metadata of every file: the number of the part

Tables = dict[str, list[pa.Table]]  #: records by the name of their table


def write_part(run: Path, number: int, tables: Tables) -> None:
    """Write the records of a batch, one file per table that has rows, and always one for the table ``samples``.

    Raises:
        OSError: The disk is full. Parts that were written before stay.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    names = _samples_last({SAMPLES, *(name for name, found in tables.items() if found)})
    own = _own(name_of_run(run), number)
    for name in names:
        about = own | ({_TABLES: " ".join(names)} if name == SAMPLES else {})
        write_atomic(_part_file(folder, number, name), parquet(tables.get(name, []), about))


def finished(run: Path, numbers: Iterable[int]) -> list[int]:
    """Return those of the numbers whose part is finished; damaged parts are named on stderr.

    Raises:
        UserError: A part is of another run.
    """
    of = name_of_run(run)
    return [number for number in numbers if _read_part(run, number, of) is not None]


def missing(run: Path, count: int) -> list[int]:
    """Return the numbers below ``count`` whose part is not finished; damaged parts are named on stderr.

    Raises:
        UserError: A part is of another run.
    """
    return sorted({*range(count)} - {*finished(run, range(count))})


def copy_parts(source: Path, run: Path) -> None:
    """Copy the parts of another folder of the same run that ``run`` does not have; damaged files are left out.

    Raises:
        UserError: A part is of another run.
    """
    (run / FOLDER).mkdir(exist_ok=True)
    of = name_of_run(source)
    for name in _table_names(source):
        for file in sorted((source / FOLDER).glob(f"{_NUMBERED}.{name}.parquet")):
            if not (run / FOLDER / file.name).exists() and _read_file(file, of) is not None:
                write_atomic(run / FOLDER / file.name, read_bytes(file, "Parquet"))


def merge(run: Path, count: int) -> dict[str, pa.Table]:
    """Join all parts in the order of their numbers, write each table to ``{table}.parquet`` and return the tables.

    A table without rows is left out.

    Raises:
        UserError: A part is missing, damaged or of another run, or no part has a sample.
    """
    of = name_of_run(run)
    parts = [_read_part(run, number, of) for number in range(count)]
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


def _own(run: str, number: int) -> dict[str, str]:
    """Return the metadata of every file of a part of a run."""
    return {RUN: run, _PART: str(number)}


def _part_file(folder: Path, number: int, table: str) -> Path:
    return folder / f"part-{number:06d}.{table}.parquet"


def _samples_last(names: Iterable[str]) -> list[str]:
    """Return the names in alphabetical order, with the table ``samples`` last."""
    return sorted(names, key=lambda name: (name == SAMPLES, name))


def _table_names(run: Path) -> list[str]:
    """Return the names of the tables that have parts."""
    return _samples_last({file.name.split(".")[1] for file in (run / FOLDER).glob(f"{_NUMBERED}.*.parquet")})


def _read_part(run: Path, number: int, of: str) -> dict[str, pa.Table] | None:
    """Return the tables of a part of the run named ``of``, or None if it is not finished."""
    last = _part_file(run / FOLDER, number, SAMPLES)
    if not last.exists() or (samples := _read_file(last, of)) is None:
        return None
    found = {}
    for name in samples[1].get(_TABLES, "").split():
        part = samples if name == SAMPLES else _read_file(_part_file(run / FOLDER, number, name), of)
        if part is None:
            return None
        found[name] = part[0]
    return found


def _read_file(file: Path, of: str) -> tuple[pa.Table, dict[str, str]] | None:
    """Return a table of a part and its metadata, or None if it is damaged, which is reported on stderr.

    Raises:
        UserError: It is of another run than the one named ``of``, or of another part.
    """
    number = int(file.name.split(".")[0].removeprefix("part-"))
    try:
        table, about = verified(file)
    except UserError as error:
        print(f"part {number} is damaged and is computed again: {error}", file=sys.stderr)
        return None
    for key, value in _own(of, number).items():
        if about.get(key) != value:
            raise UserError(f"{file}: is of another {key}, copied here; remove it, and part {number} is computed again")
    return table, about
