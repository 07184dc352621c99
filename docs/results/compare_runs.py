"""Compare two perturbation runs of one checkpoint, for example of two versions of the project.

``python docs/results/compare_runs.py RUN_FOLDER OTHER_RUN_FOLDER`` prints, by explainer and modality, how many curves
of the probability differ in any bit, and the largest difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

KEYS = ["question_id", "explainer", "modality", "seed", "direction"]


def compared(one: Path, other: Path) -> Iterator[str]:
    """Yield a Markdown table with one row for each explainer and modality."""
    first, second = (pd.read_parquet(run / "samples.parquet").set_index(KEYS)["probability"] for run in (one, other))
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


if __name__ == "__main__":
    print("\n".join(compared(Path(sys.argv[1]), Path(sys.argv[2]))))
