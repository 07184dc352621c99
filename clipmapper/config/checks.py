"""Error messages for wrong keys of a config."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from omegaconf.errors import OmegaConfBaseException


def key_problem(error: OmegaConfBaseException) -> str:
    """Return one line about a key that OmegaConf rejected, with the valid keys if the key is unknown."""
    key = str(error.full_key or error.key or "")
    first = str(error.msg or error).splitlines()[0]
    parent = error.parent_node
    if parent is not None and "not in" in first and hasattr(parent, "keys"):
        prefix = key.rpartition(".")[0]
        return unknown_key(key, [f"{prefix}.{name}" if prefix else str(name) for name in parent])
    if "Cannot merge DictConfig with ListConfig" in first:
        first = f"is a group of values; write {key}={{NAME:VALUE}}"
    return f"config key {key}: {first}" if key else first


def unknown_key(key: str, valid: Collection[str]) -> str:
    """Return one line about an unknown key, with the valid keys and the most similar one."""
    close = difflib.get_close_matches(key, valid, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown config key {key}; {hint}valid here: {', '.join(sorted(valid))}"
