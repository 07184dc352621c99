"""Parquet files with a checksum of their columns: writing, and reading with verification."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipmapper.errors import UserError
from clipmapper.files import read_bytes
from clipmapper.storage.checksums import KEY, checksum, damaged, note_unsealed

_RUN_AGAIN = "copy it again from an intact place, or run the command again that wrote it"


def parquet(tables: Sequence[pa.Table], about: Mapping[str, str] | None = None) -> bytes:
    """Return one Parquet file with the rows of all tables, which must have the same columns, and its checksum.

    The same rows give the same bytes. ``about`` is stored in the file's metadata, and the checksum covers it.
    """
    content = BytesIO()
    table = (pa.concat_tables(tables) if tables else pa.table({})).combine_chunks()
    noted = dict(about or {})
    table = table.replace_schema_metadata({**noted, KEY: checksum(_pieces(table, noted))})
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def read_table(path: Path, columns: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """Return the content of a Parquet file.

    Args:
        path: The file; one without a checksum is named on stderr.
        columns: Columns that it must have, with their types.

    Raises:
        UserError: The file is missing, no regular file, damaged, or has other columns or no rows.
    """
    table = _decode(path)
    if KEY.encode() in (table.schema.metadata or {}):
        table, _ = _verify(table, path)
    else:
        note_unsealed(path)
    for name, kind in (columns or {}).items():
        if name not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise UserError(f"{path}: has no column {name} (columns: {found:.120}); {_RUN_AGAIN}")
        if (held := table.schema.field(name).type) != kind:
            raise UserError(f"{path}: column {name} has the type {held}, not {kind}; {_RUN_AGAIN}")
    if not table.num_rows:
        raise UserError(f"{path}: has no rows; {_RUN_AGAIN}")
    return table


def verified(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Return the content of a Parquet file, and what :func:`parquet` was given ``about`` it.

    Raises:
        UserError: The file is missing, no regular file or damaged, or has no checksum.
    """
    return _verify(_decode(path), path)


def _verify(table: pa.Table, path: Path) -> tuple[pa.Table, dict[str, str]]:
    metadata = table.schema.metadata or {}
    noted = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in metadata.items()}
    held = noted.pop(KEY, None)
    try:
        intact = held == checksum(_pieces(table, noted))
    except (ValueError, pa.ArrowException):  # a name or a text is no UTF-8
        intact = False
    if not intact:
        raise damaged(path)
    return table.replace_schema_metadata(None), noted


def _decode(path: Path) -> pa.Table:
    try:
        return pq.read_table(BytesIO(read_bytes(path, "Parquet")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {_RUN_AGAIN}") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: cannot be read as Parquet ({reason}); {_RUN_AGAIN}") from error


def _pieces(table: pa.Table, noted: Mapping[str, str]) -> Iterator[bytes]:
    yield json.dumps(sorted(noted.items())).encode()
    for name, column in zip(table.column_names, table.columns, strict=True):
        yield f"{name} ".encode()
        yield from _pieces_of(pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type))


def _pieces_of(array: pa.Array) -> Iterable[bytes]:
    """Yield the values of a column as bytes: what is null, the lengths of lists and texts, and the values."""
    listed = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    yield f"{'list' if listed else array.type} {len(array)} ".encode()  # Parquet renames the field of a list's entries
    yield array.is_null().to_numpy(zero_copy_only=False).tobytes()
    if listed:
        yield pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64).tobytes()
        yield from _pieces_of(array.flatten())
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        texts = [text.encode() for text in pc.fill_null(array, "").to_pylist()]
        yield b" ".join(b"%d" % len(text) for text in texts)
        yield b"".join(texts)
    elif not pa.types.is_null(array.type):
        zero = False if pa.types.is_boolean(array.type) else 0
        yield pc.fill_null(array, zero).to_numpy(zero_copy_only=False).tobytes()
