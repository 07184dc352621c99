"""Write the tables of pooled perturbation runs again, from the per-sample results in ``data``.

``python docs/results/write_tables.py`` replaces what stands between ``<!-- table NAME -->`` and ``<!-- end -->`` in the
pages of this folder and in the README. A study is a set of folders ``data/STUDY-SEED``, each with ``samples.parquet``,
``identity.json`` and ``perturbation.json`` of a run of ``scripts/perturb.py``.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
STUDIES = ("perturb-vqa-b",)
MAIN = "weighted"
PAGES = (HERE / "perturbation.md", PROJECT / "README.md")
#: Names in the README, in the order of its table.
NAMES = {
    "weighted": "`weighted` (Huang et al. 2023)",
    "uniform": "`uniform` (both weights ½)",
    "shuffled": "`shuffled` (weights of a sample of another image)",
    "rollout": "`rollout` (Abnar and Zuidema 2020)",
    "genatt": "`genatt` (Chefer et al. 2021)",
    "random": "`random` order",
}


def tables() -> dict[str, str]:
    """Return all tables as Markdown, by name."""
    from clipmapper.files import read_json
    from perturbation.perturb.results import pool

    found = {}
    for study in STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            content = pool(sorted((HERE / "data").glob(f"{study}-[0-9]")), Path(folder))
            text = (Path(folder) / "areas_accuracy.md").read_text(encoding="utf-8")
            found[f"{study} accuracy"] = text.split("\n\n")[0] + "\n"  # the comparisons with controls follow
            found[f"{study} differences"] = differences(read_json(Path(folder) / "comparisons.json"))
        found[f"{study} gaps"] = gaps(content)
    return found


def gaps(content: Mapping[str, Any]) -> str:
    """Return the README's table: the gaps of the accuracy of each explainer."""
    cells = {(row["explainer"], row["modality"]): row for row in content["gaps"] if row["measure"] == "accuracy"}
    lines = ["| explainer | image gap ↑ | text gap ↑ |", "| --- | ---: | ---: |"]
    for name, shown in NAMES.items():
        values = []
        for modality in ("image", "text"):
            low, high = cells[name, modality]["gap_ci95"]
            values.append(f"{cells[name, modality]['gap']:.1f} [{low:.1f}, {high:.1f}]")
        lines.append(f"| {shown} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def differences(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the gap of ``weighted`` minus that of every other explainer, with a star for p < 0.05."""
    columns = [(modality, value) for modality in ("image", "text") for value in ("accuracy", "probability")]
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in comparisons:
        if row["direction"] == "gap" and MAIN in (row["first"], row["second"]):
            sign = 1 if row["first"] == MAIN else -1
            other = row["second"] if sign == 1 else row["first"]
            low, high = sorted(sign * end for end in row["ci95"])
            star = "*" if row["p_holm"] < 0.05 else ""
            text = f"{sign * row['difference']:+.2f}{star} [{low:+.2f}, {high:+.2f}]"
            found.setdefault(other, {})[row["modality"], row["measure"]] = text
    lines = [f"| against | {' | '.join(map(', '.join, columns))} |", f"| --- |{' --- |' * len(columns)}"]
    lines += [f"| `{other}` | {' | '.join(cells[column] for column in columns)} |" for other, cells in found.items()]
    return "\n".join(lines) + "\n"


def filled(text: str, known: Mapping[str, str]) -> str:
    """Return a page with its tables replaced.

    Raises:
        KeyError: The page names a table that does not exist.
    """
    pattern = re.compile(r"(<!-- table ([\w -]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{known[found[2]]}\n{found[3]}", text)


def main() -> None:
    """Write all pages again."""
    known = tables()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), known), encoding="utf-8")
        print(f"wrote {page.relative_to(PROJECT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
