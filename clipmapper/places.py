"""Where the configs are, and where runs and data go unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

_PACKAGE = Path(__file__).resolve().parent
#: The checkout that the package runs from; None for an installed wheel, which brings its configs along.
CHECKOUT = None if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
CONFIGS = (CHECKOUT or _PACKAGE) / "configs"


def default_root() -> Path:
    """Return the checkout, or the current folder for an installed wheel."""
    return CHECKOUT or Path.cwd()


OmegaConf.register_new_resolver("project", lambda: str(default_root()), replace=True)
