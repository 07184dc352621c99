"""Reader of the file that W&B writes offline: a log in LevelDB's format, whose entries are protobuf messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7  # bytes; the header of a chunk: checksum, length, and whether it is the last of its entry
FULL, LAST = 1, 4
SECONDS = 30  # to wait for the end of a run


@dataclass
class WandbLog:
    """What was logged."""

    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(
        default_factory=list
    )  #: the values of each call of ``log`` by name; tables and images are dicts
    folder: Path = Path()  #: of tables and images


def entries(content: bytes) -> Iterator[bytes]:
    """Yield the entries, each joined from its chunks; a chunk never goes beyond the end of a block."""
    place, entry = HEADER, b""  # the file has a header too, which is as long
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + HEADER + length > len(content):
            return  # the rest is not written yet
        entry += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield entry
            entry = b""


def records(file: Path) -> list[Any]:
    """Return the messages of a run that has ended; W&B's own process writes the last ones some time after the end."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(SECONDS * 10):
        found = [Record.FromString(entry) for entry in entries(file.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end after {SECONDS} seconds")


def read_wandb(run: Path) -> WandbLog:
    """Read the only W&B run in a run folder."""
    [file] = (run / "wandb").glob("offline-run-*/*.wandb")
    log = WandbLog(folder=file.parent / "files")
    for record in records(file):
        for part in (record.run.config, record.config):
            log.config |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in part.update}
        if record.history.item:
            log.history.append({})
            for item in record.history.item:
                name, *inner = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                if inner:
                    log.history[-1].setdefault(name, {})["/".join(inner)] = value
                else:
                    log.history[-1][name] = value
    return log
