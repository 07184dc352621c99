"""Command that scores a trained model, or a result file from any model, by the official metrics of the task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import EvaluateConfig
from clipmapper.process.launched import is_first
from clipmapper.tasks import TASKS

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


@command("evaluate", shared=True)
def main(config: DictConfig, run: Path) -> None:
    """Score the result file that the config names, otherwise a checkpoint."""
    checked: EvaluateConfig = typed(config, EvaluateConfig)
    task = TASKS[checked.task.name]
    of_model = not any((checked.predictions, checked.questions, checked.annotations, checked.references))
    if not (of_model or is_first()):
        return
    logger = _start_log(checked, run)
    scores = task.score_checkpoint(checked, run) if of_model else task.score_files(checked, run)
    if logger is not None:
        from clipmapper.training.logged import end_log, log_scores

        log_scores(logger, scores, step=0)
        end_log(logger)


def _start_log(config: EvaluateConfig, run: Path) -> Logger | None:
    """Start the log of the final scores in the first process, if the logger takes them, as ``csv`` does not."""
    if config.logger.name == "csv" or not is_first():
        return None
    from clipmapper.training.trainer import start_log  # only here: a result file is scored without Lightning

    return start_log(config, run)
