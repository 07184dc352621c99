"""Config schema of the command ``cache``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.fields import choice, whole
from clipmapper.config.schema import PathsConfig


@dataclass
class CacheConfig:
    """Options of ``cache``; ``configs/cache.yaml`` explains each value."""

    do: str = choice("list", "verify", "prune")
    unused_days: int | None = whole(0)
    yes: bool = MISSING
    paths: PathsConfig = MISSING
