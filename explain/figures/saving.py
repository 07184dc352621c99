"""Saving of figures to files."""

import secrets
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib.figure import Figure

# Leave out dates and versions, so that the same figure gives the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
RESOLUTION = 300  # pixels per inch
# Matplotlib's own settings, so that the user's matplotlibrc (such as LaTeX for all text) changes no figure.
DEFAULTS: dict[Any, Any] = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
# Font type 42 embeds TrueType fonts, which publishers require.
SETTINGS: dict[Any, Any] = {
    **DEFAULTS,
    "pdf.fonttype": 42,
    "pdf.use14corefonts": False,
    "pdf.compression": 6,
    "savefig.bbox": "standard",
    "savefig.facecolor": "auto",
    "savefig.transparent": False,
}


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write a figure to ``path.png``, with 300 pixels per inch, and ``path.pdf``, with embedded fonts.

    The same figure always gives the same bytes. If writing fails, an existing file is kept, and no partial file is
    left.

    Args:
        figure: The figure.
        path: Path without the suffix; missing folders are created.
        formats: ``png``, ``pdf`` or both.

    Returns:
        The paths of the files, in the order of ``formats``.

    Raises:
        ValueError: A format is unknown.
    """
    if unknown := [name for name in formats if name not in METADATA]:
        raise ValueError(f"unknown format {unknown[0]!r}; a figure is saved as {' or '.join(METADATA)}")
    files = [Path(f"{path}.{name}") for name in formats]
    for file, name in zip(files, formats, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(figure, file, name)
    return files


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes that :func:`save` writes to ``path.png``."""
    file = BytesIO()
    _draw(figure, file, "png")
    return file.getvalue()


def _draw(figure: Figure, file: Path | IO[bytes], name: str) -> None:
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(file, format=name, dpi=RESOLUTION, metadata=METADATA[name])


def _write(figure: Figure, file: Path, name: str) -> None:
    """Write to a temporary file, then rename it, so that a partial file is never visible."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        _draw(figure, temporary, name)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
