"""Command that draws figures of explanations and writes their scores."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, named, typed
from clipmapper.tasks import TASKS


@command("explain", as_typed=("image", "question"))
def main(config: DictConfig, run: Path) -> None:
    """Write figures and scores of the samples that the config chooses."""
    task = named(config, "task", TASKS)
    checked = typed(config, task.explain_schema)
    from clipmapper.choice import describe
    from clipmapper.explaining.explainers import choose_explainers, print_lrp_precision
    from clipmapper.explaining.output import PICTURES, SCORES

    explainers = choose_explainers(config.explainer, choice("explainer"))
    trained = task.trained(checked)
    print(f"checkpoint: {describe(trained.checkpoint)}", flush=True)
    print_lrp_precision(explainers.values(), trained.model)
    count = task.write_pictures(trained, explainers, checked, run)
    print(f"explained {count} {task.samples}: figures in {run / PICTURES}, scores in {run / SCORES}")
