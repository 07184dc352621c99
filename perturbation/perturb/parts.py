"""Records on disk: a part for every batch, written as it comes, and one file of each kind in the end.

A part is there as soon as its file of samples is, which is written last; a process that is killed leaves whole parts.
The same records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipmapper.errors import UserError
from clipmapper.files import write_whole

SAMPLES, FAITHFULNESS, CEILING = "samples", "faithfulness", "ceiling"
KINDS = (CEILING, FAITHFULNESS, SAMPLES)  # in the order of writing
FOLDER = "parts"

Tables = dict[str, list[pa.Table]]  #: by kind


def write_part(run: Path, number: int, tables: Tables) -> None:
    """Writes the records of a batch; a kind without records has no file, but samples always have one.

    Raises ``OSError`` where the disk is full; what is there already stays.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for kind in KINDS:
        if tables.get(kind) or kind == SAMPLES:
            write_whole(_part(folder, number, kind), parquet(tables.get(kind, [])))


def finished(run: Path, count: int) -> list[int]:
    """The numbers below ``count`` whose part is there and can be read."""
    return [number for number in range(count) if _readable(_part(run / FOLDER, number, SAMPLES))]


def take_over(source: Path, run: Path) -> None:
    """Copies the parts of another run folder; those that can't be read are left."""
    there = [file for kind in KINDS for file in sorted((source / FOLDER).glob(f"part-*.{kind}.parquet"))]
    (run / FOLDER).mkdir(exist_ok=True)
    for file in there:
        if not (run / FOLDER / file.name).exists():
            write_whole(run / FOLDER / file.name, file.read_bytes())


def merge(run: Path, count: int) -> dict[str, pa.Table]:
    """All parts in order, written as ``{kind}.parquet``; a kind without records is left out.

    Raises ``UserError`` where a part is missing or no part has a sample.
    """
    missing = sorted(set(range(count)) - set(finished(run, count)))
    if missing:
        raise UserError(f"{run}: part {missing[0]} is missing; go on with resume={run}")
    merged = {}
    for kind in KINDS:
        files = [_part(run / FOLDER, number, kind) for number in range(count)]
        tables = [table for file in files if file.exists() and (table := pq.read_table(file)).num_rows]
        if tables:
            content = parquet(tables)
            write_whole(run / f"{kind}.parquet", content)
            merged[kind] = pq.read_table(BytesIO(content))
    if SAMPLES not in merged:
        raise UserError(f"{run}: no picture of the chosen questions could be read; check the image folder in data.root")
    return merged


def parquet(tables: Sequence[pa.Table]) -> bytes:
    """Tables of the same columns, one below the other, as one file."""
    content = BytesIO()
    table = pa.concat_tables(tables) if tables else pa.table({})
    pq.write_table(table.combine_chunks(), content, compression="zstd")
    return content.getvalue()


def _part(folder: Path, number: int, kind: str) -> Path:
    return folder / f"part-{number:06d}.{kind}.parquet"


def _readable(file: Path) -> bool:
    try:
        pq.read_metadata(file)
    except (OSError, pa.ArrowInvalid):
        return False
    return True
