"""Compare two perturbation runs of one checkpoint, for example of two versions of the project.

``python docs/results/compare_runs.py RUN_FOLDER OTHER_RUN_FOLDER`` prints, by explainer and modality, how many curves
of the probability differ in any bit, and the largest difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from clipmapper.errors import UserError
from clipmapper.storage.tables import read_table

KEYS = ["question_id", "explainer", "modality", "seed", "direction"]


def compared(one: Path, other: Path) -> Iterator[str]:
    """Yield a Markdown table with one row for each explainer and modality."""
    first, second = (_probability(run / "samples.parquet") for run in (one, other))
    both = pd.concat([first, second], axis=1, keys=["first", "second"])
    yield "| explainer | modality | curves that differ | largest difference |"
    yield "| --- | --- | ---: | ---: |"
    for (explainer, modality), rows in both.groupby(["explainer", "modality"]):
        shared = rows.dropna()
        if shared.empty:
            where = "second" if rows["first"].isna().all() else "first"
            yield f"| `{explainer}` | {modality} | only in the {where} run | |"
            continue
        largest = [abs(a - b).max() for a, b in zip(shared["first"], shared["second"], strict=True)]
        yield f"| `{explainer}` | {modality} | {sum(map(bool, largest))} of {len(largest)} | {max(largest):.2g} |"


def _probability(path: Path) -> Any:
    """Return the curves of the probability by the columns that say what they are about."""
    table = read_table(path)
    if missing := {*KEYS, "probability"} - {*table.column_names}:
        raise UserError(f"{path}: has no column {min(missing)}; give a run of perturb that tests answers")
    return table.to_pandas().set_index(KEYS)["probability"]


if __name__ == "__main__":
    try:
        print("\n".join(compared(Path(sys.argv[1]), Path(sys.argv[2]))))
    except UserError as error:
        sys.exit(f"error: {error}")
