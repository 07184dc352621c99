"""``metrics.json``: what a run measured, with the config and the versions that it was measured with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clipmapper.files import write_json

_PACKAGES = ("torch", "open_clip_torch", "pytorch-lightning", "numpy")


def write_metrics(path: Path, metrics: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes the metrics beside the resolved config and the versions of what computed them."""
    write_json(path, {**metrics, "config": config, "versions": versions()})


def versions() -> dict[str, str]:
    """Python, the packages that numbers depend on, and the project's commit where it is a checkout and git is there."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    here = str(Path(__file__).parent)
    try:
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return found
    return found | {"commit": head.stdout.strip()}
