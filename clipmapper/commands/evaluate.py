"""Command that scores a trained model, or a result file from any model, by the official metrics of the task."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import EvaluateConfig
from clipmapper.process.launched import is_first
from clipmapper.tasks import TASKS


@command("evaluate", shared=True)
def main(config: DictConfig, run: Path) -> None:
    """Score the result file that the config names, otherwise a checkpoint."""
    checked: EvaluateConfig = typed(config, EvaluateConfig)
    task = TASKS[checked.task.name]
    if not any((checked.predictions, checked.questions, checked.annotations, checked.references)):
        task.score_checkpoint(checked, run)
    elif is_first():
        task.score_files(checked, run)
