"""Commands give the same numbers on a GPU as on a CPU. These tests are skipped where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

COMMANDS = {
    "questions": ("perturb", "samples=20", "explainer=paper"),
    "captions": ("perturb", "task=caption", "samples=4", "explainer=paper"),
    "llava": ("perturb", "model=huggingface", "model.path=embedded", "samples=4", "explainer=paper"),
    "clip": ("perturb", "model=open_clip", "samples=8", "explainer=paper"),
    "localisation": ("evaluate_explanations", "samples=40"),
    "caption words": ("evaluate_explanations", "task=caption", "samples=10"),
    "random layers": ("sanity_check", "samples=10"),
}
# Steps of a curve that may differ: those where two answers, or two scores, are equal up to rounding.
SHARE_OF_OTHER_VALUES, ROUNDING = 0.01, 2e-4


@pytest.mark.parametrize("name", COMMANDS)
def test_the_results_are_those_of_a_cpu(name: str, tmp_path: Path) -> None:
    tables = {device: run(device, COMMANDS[name], tmp_path) for device in ("cpu", "cuda")}
    assert tables["cpu"]
    assert tables["cpu"].keys() == tables["cuda"].keys()
    for file, expected in tables["cpu"].items():
        found = tables["cuda"][file]
        assert found.shape == expected.shape
        assert list(found) == list(expected)
        for column in expected:
            values, others = (numbers(frame[column]) for frame in (expected, found))
            if values is None or others is None:
                assert found[column].astype(str).equals(expected[column].astype(str)), (file, column)
            else:
                differ = ~np.isclose(others, values, rtol=1e-3, atol=ROUNDING, equal_nan=True)
                assert differ.mean() <= SHARE_OF_OTHER_VALUES, (file, column, differ.mean())


def run(device: str, command: Sequence[str], folder: Path) -> dict[str, pd.DataFrame]:
    script, *arguments = command
    given = [f"trainer.accelerator={device}", f"hydra.run.dir={folder / device}", "threads=2"]
    environment = {**os.environ, "CLIPMAPPER_ROOT": str(folder)}
    found = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / f"{script}.py"), *arguments, *given],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return {path.name: pd.read_parquet(path) for path in (folder / device).glob("*.parquet")}


def numbers(column: pd.Series) -> np.ndarray | None:
    """Return all numbers of a column of numbers, or of lists of numbers; None for other columns."""
    if column.dtype.kind == "f":
        return column.to_numpy()
    if len(column) and isinstance(column.iloc[0], np.ndarray) and column.iloc[0].dtype.kind == "f":
        return np.concatenate(list(column))
    return None
