"""Config schemas with the values of the project's YAML files, for tests that do not compose a command's config."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipmapper.config.schema import MapperConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@cache
def values(file: str) -> dict[str, Any]:
    """Return the keys and values of ``configs/{file}.yaml``, without its defaults list."""
    found = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{file}.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items() if key not in ("defaults", "hydra")}


def mapper_config(name: str, **changes: Any) -> MapperConfig:
    """Return the config of mapper ``a`` or ``b`` with changes to any key."""
    return MapperConfig(**{**values(f"mapper/{name}"), **changes})
