"""Functions that the contract tests share.

No other file in this folder imports a module that is not part of the contract. README loads models with
``load_checkpoint``; if it moves, only the import in this file changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from clipmapper.api import load_checkpoint

__all__ = ["GOLDEN", "PROJECT", "composed", "golden", "load_checkpoint", "write_golden"]

PROJECT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parent / "golden"


def composed(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the config of a command as Hydra composes it."""
    with initialize_config_dir(str(PROJECT / "configs"), version_base=None):
        return compose(command, list(overrides))


def golden(name: str) -> Any:
    """Return the content of ``golden/{name}.json``."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def write_golden(name: str, content: Any) -> None:
    """Write ``golden/{name}.json`` with one line for each innermost list or dict of plain values."""
    (GOLDEN / f"{name}.json").write_text(_pretty(content, "") + "\n", encoding="utf-8")
    print(f"wrote {GOLDEN / f'{name}.json'}", file=sys.stderr)


def _pretty(content: Any, indent: str) -> str:
    line = json.dumps(content, ensure_ascii=False)
    values = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(values, list) or (len(line) < 110 and not any(isinstance(v, dict | list) for v in values)):
        return line
    deeper = indent + " "
    entries = [_pretty(value, deeper) for value in values]
    if isinstance(content, dict):
        entries = [f"{json.dumps(key, ensure_ascii=False)}: {e}" for key, e in zip(content, entries, strict=True)]
    first, last = "{}" if isinstance(content, dict) else "[]"
    return f"{first}\n{deeper}" + f",\n{deeper}".join(entries) + f"\n{indent}{last}"
