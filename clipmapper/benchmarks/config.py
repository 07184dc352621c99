"""Typed schema of the benchmark's config."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from clipmapper.config.fields import Choice, items
from clipmapper.config.schema import Config
from clipmapper.errors import UserError

WHAT = ("training", "explaining", "captioning", "perturbing", "reading", "precision", "feeding", "encoding", "stages")
TINY_ONLY = ("training", "reading", "precision", "feeding", "encoding")  # measured at the size tiny only
SIZES = ("tiny", "vit_b_32")


@dataclass
class BenchmarkConfig(Config):
    """Config of ``scripts/benchmark.py``.

    ``what``: the benchmarks to run, from ``WHAT``. ``sizes``: the model sizes, from ``SIZES``; those of
    ``TINY_ONLY`` are measured at the tiny size only. ``reading`` needs ``transformers``.
    """

    what: list[str] = items(Choice(WHAT))
    sizes: list[str] = items(Choice(SIZES))

    def __post_init__(self) -> None:
        super().__post_init__()
        if "reading" in self.what and find_spec("transformers") is None:
            raise UserError('what=reading: transformers is not installed: pip install -e ".[transformers]"')
