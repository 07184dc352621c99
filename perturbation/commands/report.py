"""The command ``report``: one HTML page of the results of any runs."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.places import real_path
from clipmapper.text import printable
from perturbation.config import ReportConfig


@command("report")
def main(config: DictConfig, run: Path) -> None:
    """Write the page of the chosen runs, ``report.html``."""
    checked: ReportConfig = typed(config, ReportConfig)
    from perturbation.page.assemble import write_page
    from perturbation.page.runs import newest_runs, runs_of

    root = Path(checked.paths.runs)
    folders = dict.fromkeys(real_path(folder) for folder in checked.runs or ())
    runs = newest_runs(root) if checked.runs is None else [each for folder in folders for each in runs_of(folder)]
    page, problems = write_page(runs, checked.samples, root, run)
    for folder, problem in problems.items():
        print(printable(f"{folder} is {problem}"), file=sys.stderr)
    print(f"{len(runs) - len(problems)} of {len(runs)} runs have results; the page is {page}")
