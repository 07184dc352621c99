"""Figures as files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Without dates and versions, the same figure gives the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# 42: fonts go in as TrueType, which publishers ask for. The others undo what a user's matplotlibrc may say.
SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "pdf.use14corefonts": False,
    "pdf.compression": 6,
    "savefig.bbox": "standard",
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
}


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write ``path.png`` and ``path.pdf``; the same figure gives the same bytes. A file is whole or not there.

    Args:
        figure: The figure.
        path: Path without the suffix; folders that are missing are made.
        formats: ``png``, ``pdf``.

    Returns:
        The files, in the order of ``formats``.

    Raises:
        ValueError: another format.
    """
    if unknown := [name for name in formats if name not in METADATA]:
        raise ValueError(f"unknown format {unknown[0]!r}; a figure is saved as {' or '.join(METADATA)}")
    files = [Path(f"{path}.{name}") for name in formats]
    for file, name in zip(files, formats, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(figure, file, name)
    return files


def _write(figure: Figure, file: Path, name: str) -> None:
    """Write to a temporary name, then rename: nobody sees half a file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with matplotlib.rc_context(SETTINGS):
            figure.savefig(temporary, format=name, dpi=figure.dpi, metadata=METADATA[name])
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
