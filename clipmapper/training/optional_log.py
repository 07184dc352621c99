"""W&B and TensorBoard cost no result: when one fails during a run, the run continues without it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec

from pytorch_lightning.loggers import CSVLogger, Logger

from clipmapper.errors import reason

P = ParamSpec("P")

_CALLED = ("log_metrics", "log_hyperparams", "log_table", "log_image", "save", "finalize")  # by Lightning and here
_failed = "_clipmapper_failed"  # attribute of a logger


def optional(log: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Return a function of a logger that, when it fails, warns once; after that it does nothing for this logger.

    The logger ``csv`` writes into the run folder, so its errors are those of the run.
    """

    @wraps(log)
    def attempt(logger: Logger | None, *args: P.args, **options: P.kwargs) -> None:
        if getattr(logger, _failed, False):
            return
        try:
            log(logger, *args, **options)
        except Exception as error:
            if logger is None or isinstance(logger, CSVLogger):
                raise
            setattr(logger, _failed, True)
            name = type(logger).__name__.removesuffix("Logger")
            print(
                f"warning: {name} failed ({reason(error)}), so nothing more is logged to it; the run continues, "
                "and all results are written to the run folder",
                file=sys.stderr,
                flush=True,
            )

    return attempt


def make_optional(logger: Logger) -> None:
    """Make the calls of a logger :func:`optional`, those of Lightning too."""
    for name in _CALLED:
        if (method := getattr(type(logger), name, None)) is not None:
            setattr(logger, name, partial(optional(method), logger))
