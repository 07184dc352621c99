"""Schemas with the values of the project's YAML, for tests that compose no command."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipmapper.config.schema import MapperConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@cache
def values(file: str) -> dict[str, Any]:
    """The own keys of ``configs/{file}.yaml``."""
    found = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{file}.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items() if key not in ("defaults", "hydra")}


def mapper_config(name: str, **changes: Any) -> MapperConfig:
    """Mapper ``a`` or ``b``, with changes to any key."""
    return MapperConfig(**{**values(f"mapper/{name}"), **changes})
