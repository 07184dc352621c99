"""The curves of a training that the logger ``csv`` writes: kept when the run is resumed in its folder, and verified.

A checkpoint holds the checksum of the rows before its step, since the file grows while the training continues.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from clipmapper.errors import UserError
from clipmapper.files import read_bytes, write_atomic
from clipmapper.storage.checksums import checksum

CURVES = "curves"  #: the key of the checksum in a checkpoint
Row = dict[str, str]  #: values by column; in the file, columns without a value are empty


def checksum_of_curves(logger: Logger | None, step: int) -> dict[str, str]:
    """Return the entry ``curves`` of a checkpoint; empty without a logger that writes a file of curves."""
    path = _file(logger)
    return {} if path is None else {CURVES: _checksum(_rows(path, step)[1])}


def keep_curves(logger: Logger | None, state: Mapping[str, Any]) -> None:
    """Keep the curves in the run folder before the step of a checkpoint, which the logger would remove.

    Args:
        logger: The logger of the run that continues the one in this folder.
        state: The content of the checkpoint.

    Raises:
        UserError: The curves are not those that were there when the checkpoint was written.
    """
    path = _file(logger)
    if path is None or not isinstance(logger, CSVLogger):
        return
    columns, rows = _rows(path, state["global_step"])
    if CURVES in state and _checksum(rows) != state[CURVES]:
        raise _damaged(path)
    text = StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    logger.experiment.metrics_keys = columns  # the logger has removed the file now
    write_atomic(path, text.getvalue().encode())


def _file(logger: Logger | None) -> Path | None:
    path = Path(logger.log_dir) / "metrics.csv" if isinstance(logger, CSVLogger) else None
    return path if path is not None and path.is_file() else None


def _rows(path: Path, step: int) -> tuple[list[str], list[Row]]:
    """Return the columns, and the rows before a step."""
    try:
        reader = csv.DictReader(StringIO(read_bytes(path, "curves").decode(), newline=""), restval="", strict=True)
        rows = [row for row in reader if int(row["step"]) < step]
        columns = list(reader.fieldnames or ())
        if "" in columns or any(None in row for row in rows):
            raise ValueError("a value has no column")
    except (ValueError, KeyError, csv.Error) as error:  # errors of decoding are ValueErrors
        raise _damaged(path) from error
    return columns, rows


def _checksum(rows: list[Row]) -> str:
    known = [sorted((name, value) for name, value in row.items() if value) for row in rows]
    return checksum([json.dumps(known).encode()])


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path}: damaged or edited: these are not the curves up to the checkpoint; copy the file again from an intact "
        "place, or remove it, and the run is continued without its earlier curves"
    )
