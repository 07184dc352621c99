"""The comparison of two runs of one checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from public import PROJECT

from clipmapper.storage.checksums import KEY
from clipmapper.storage.tables import parquet, verified


def write(folder: Path, *rows: tuple[str, str, list[float]]) -> None:
    folder.mkdir()
    fixed: dict[str, Any] = {"question_id": 7, "seed": 0, "direction": "positive"}
    entries = [{**fixed, "explainer": e, "modality": m, "probability": p} for e, m, p in rows]
    pd.DataFrame(entries).to_parquet(folder / "samples.parquet")


def compared(folder: Path, check: bool) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(PROJECT / "docs" / "results" / "compare_runs.py"), str(folder / "a"), str(folder / "b")]
    return subprocess.run(line, capture_output=True, text=True, check=check)


def test_a_difference_of_one_bit_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a", ("same", "image", [0.1, 0.2]), ("moved", "image", [0.5, 0.5]), ("gone", "text", [1.0]))
    write(
        tmp_path / "b", ("same", "image", [0.1, 0.2]), ("moved", "image", [0.5, 0.5 + 2**-53]), ("new", "text", [1.0])
    )
    found = compared(tmp_path, check=True).stdout.splitlines()[2:]
    assert found == [
        "| `gone` | text | only in the first run | |",
        "| `moved` | image | 1 of 1 | 1.1e-16 |",
        "| `new` | text | only in the second run | |",
        "| `same` | image | 0 of 1 | 0 |",
    ]


def test_a_damaged_run_is_refused_in_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = {"question_id": [7], "explainer": ["e"], "modality": ["image"], "seed": [0], "direction": ["positive"]}
        (tmp_path / name / "samples.parquet").write_bytes(parquet([pa.table({**rows, "probability": [[0.25, 0.5]]})]))
    assert compared(tmp_path, check=True).stdout.endswith("| `e` | image | 0 of 1 | 0 |\n")
    file = tmp_path / "b" / "samples.parquet"
    table, about = verified(file)
    changed = table.set_column(5, "probability", pa.array([[0.25, 0.25]]))
    pq.write_table(changed.replace_schema_metadata({**about, KEY: pq.read_schema(file).metadata[KEY.encode()]}), file)
    ended = compared(tmp_path, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: {file}: damaged or edited: ")
    assert ended.stderr.count("\n") == 1
