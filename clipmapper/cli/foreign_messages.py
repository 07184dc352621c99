"""Warnings and log lines of libraries, which a command does not show."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipmapper.places import PACKAGE

# Where warnings are not shown from: libraries, code without a file, and this project, whose own messages are printed.
_FOREIGN = (
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
    *(str(PACKAGE.parent / name) for name in ("clipmapper", "explain", "perturbation")),
)


@contextmanager
def without_foreign_messages() -> Iterator[None]:
    """Silence warnings and log lines of libraries, unless stack traces or Python's warnings (``-W``) are asked for.

    Warnings from the user's own files, such as an explainer's, are shown.
    """
    if os.environ.get("CLIPMAPPER_TRACE") == "1" or sys.warnoptions:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    show, level = warnings.showwarning, logging.root.manager.disable
    logging.disable(logging.WARNING)

    def show_own(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
    ) -> None:
        if not filename.startswith(_FOREIGN):
            show(message, category, filename, lineno, *rest, **more)

    warnings.showwarning = show_own  # filters would be replaced by those that libraries add on import
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.disable(level)
