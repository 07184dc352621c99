"""What a perturbation run logs: areas and, to W&B and TensorBoard, also curves, tables and figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pytorch_lightning.loggers import Logger

from clipmapper.training.logged import end_log, log_picture, log_table, takes_more_than_numbers
from perturbation.report.rows import Row


def log_results(logger: Logger | None, rows: Sequence[Row], run: Path) -> None:
    """Log the results of a run.

    A point of a curve is logged at the step that is the percentage of removed tokens.

    Args:
        logger: The trainer's logger.
        rows: The entry ``rows`` of ``perturbation.json``.
        run: The run folder with the tables and figures.
    """
    if logger is None:
        return
    for name in [key for key in rows[0] if key.endswith("auc")]:
        logger.log_metrics({f"{name}/{_test(row)}": row[name] for row in rows}, step=0)
    if takes_more_than_numbers(logger):
        _log_curves(logger, rows)
        for file in sorted(run.glob("areas_*.csv")):
            with file.open(newline="", encoding="utf-8") as lines:
                heads, *cells = csv.reader(lines)
            log_table(logger, file.stem, heads, cells)
        for file in sorted(run.glob("curves_*.png")):
            log_picture(logger, file.stem, Image.open(file), f"{file.stem} over the share of removed tokens")
    end_log(logger)


def _log_curves(logger: Logger, rows: Sequence[Row]) -> None:
    values = [key for key in rows[0] if f"{key}_ci95" in rows[0] and not key.endswith("auc")]
    for number, share in enumerate(rows[0]["steps"]):
        points = {f"{value}/{_test(row)}": row[value][number] for row in rows for value in values}
        logger.log_metrics(points, step=round(100 * share))


def _test(row: Row) -> str:
    return f"{row['explainer']}/{row['modality']}_{row['direction']}"
