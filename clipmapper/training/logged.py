"""What a run logs besides its curves: config, final scores, tables and pictures, to W&B and TensorBoard.

The logger ``csv`` keeps only curves; the files of the run folder have the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from clipmapper.escapes import markdown
from clipmapper.training.optional_log import optional


def takes_more_than_numbers(logger: Logger | None) -> bool:
    """Return whether a logger takes the config, tables and pictures, which ``csv`` does not."""
    return isinstance(logger, WandbLogger | TensorBoardLogger)


@optional
def log_config(logger: Logger, config: Mapping[str, Any]) -> None:
    """Log a resolved config; TensorBoard gets it as a table."""
    if isinstance(logger, WandbLogger):
        logger.log_hyperparams(dict(config))
    if isinstance(logger, TensorBoardLogger):
        log_table(logger, "config", ["key", "value"], list(_flat(config, ".")))


@optional
def log_table(logger: Logger | None, name: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table; TensorBoard gets it as Markdown text."""
    if isinstance(logger, WandbLogger):
        logger.log_table(name, columns=list(heads), data=[list(row) for row in rows])
    if isinstance(logger, TensorBoardLogger):
        cells = [[markdown(str(each)) for each in line] for line in (heads, *rows)]
        lines = [cells[0], ["---"] * len(heads), *cells[1:]]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        logger.experiment.add_text(name, text)


@optional
def log_picture(logger: Logger | None, name: str, picture: Image.Image, caption: str) -> None:
    """Log a picture with its caption; TensorBoard gets the caption as text with the same name."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [picture], caption=[caption])
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")
        logger.experiment.add_text(name, markdown(caption))


@optional
def log_scores(logger: Logger | None, scores: Mapping[str, Any], step: int) -> None:
    """Log the final scores as numbers named ``final/SPLIT/SCORE``, and as the table ``scores``."""
    if logger is None or not takes_more_than_numbers(logger):
        return
    found = [(name, float(value)) for name, value in _flat(scores, "/") if isinstance(value, int | float)]
    logger.log_metrics({f"final/{name}": value for name, value in found}, step)
    log_table(logger, "scores", ["score", "value"], found)


def _flat(nested: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested mappings with their names, such as ``test/by_answer_type/other``."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, separator, f"{prefix}{name}{separator}")
        else:
            yield f"{prefix}{name}", value


@optional
def end_log(logger: Logger | None) -> None:
    """Write what is not written yet; a W&B run ends, so that the next job of a sweep gets another one."""
    if logger is None:
        return
    logger.finalize("success")
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
