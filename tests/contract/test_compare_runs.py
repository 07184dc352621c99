"""The comparison of two runs of one checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from public import PROJECT


def write(folder: Path, *rows: tuple[str, str, list[float]]) -> None:
    folder.mkdir()
    fixed: dict[str, Any] = {"question_id": 7, "seed": 0, "direction": "positive"}
    entries = [{**fixed, "explainer": e, "modality": m, "probability": p} for e, m, p in rows]
    pd.DataFrame(entries).to_parquet(folder / "samples.parquet")


def test_a_difference_of_one_bit_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a", ("same", "image", [0.1, 0.2]), ("moved", "image", [0.5, 0.5]), ("gone", "text", [1.0]))
    write(
        tmp_path / "b", ("same", "image", [0.1, 0.2]), ("moved", "image", [0.5, 0.5 + 2**-53]), ("new", "text", [1.0])
    )
    line = [
        sys.executable,
        str(PROJECT / "docs" / "results" / "compare_runs.py"),
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    found = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    assert found == [
        "| `gone` | text | only in the first run | |",
        "| `moved` | image | 1 of 1 | 1.1e-16 |",
        "| `new` | text | only in the second run | |",
        "| `same` | image | 0 of 1 | 0 |",
    ]
