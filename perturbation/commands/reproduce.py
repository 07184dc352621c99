"""The command ``reproduce``: all stages of an experiment, from the models to the report."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.errors import UserError
from perturbation.config import ReproduceConfig
from perturbation.reproduce.stages import STAGES, planned


@command("reproduce", continued=[STAGES])
def main(config: DictConfig, run: Path) -> None:
    """Run the stages of an experiment in order, and write the page of their results.

    A second run continues where the first one stopped.
    """
    checked: ReproduceConfig = typed(config, ReproduceConfig)
    from perturbation.page.assemble import write_page
    from perturbation.page.runs import runs_of
    from perturbation.reproduce.run import LOGS, run_stages

    stages = planned(checked.stages, checked.shared)
    bad = run_stages(stages, run, checked.jobs)
    page, _ = write_page(runs_of(run), checked.samples, Path(checked.paths.runs), run)
    print(f"the page of the results is {page}")
    if bad:
        raise UserError(
            f"{len(bad)} of {len(stages)} stages did not end well, the first is {bad[0].name} "
            f"({run / LOGS / bad[0].name}.txt); run the same command again to repeat only these"
        )
