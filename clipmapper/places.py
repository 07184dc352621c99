"""The folder of the configs, and the default folder of runs and data."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import OmegaConf

#: The folder of this package.
PACKAGE = Path(__file__).resolve().parent
#: The checkout that contains the package; None for an installed wheel, which includes the configs.
CHECKOUT = None if (PACKAGE / "configs").is_dir() else PACKAGE.parent
#: The folder of the configs.
CONFIGS = (CHECKOUT or PACKAGE) / "configs"


def default_root() -> Path:
    """Return the checkout or, for an installed wheel, the current folder."""
    return CHECKOUT or Path.cwd()


OmegaConf.register_new_resolver("project", lambda: str(default_root()), replace=True)


def real_path(path: str | Path) -> Path:
    """Return a path as absolute and without links; of links that form a loop, the rest is returned unchanged."""
    return Path(os.path.realpath(path))
