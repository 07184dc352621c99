"""Explicit attention of a ``transformers`` model for the time of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def explicit_attention(model: nn.Module) -> Iterator[None]:
    """Let a model compute its attention and its masks explicitly inside the block; restore its configs afterwards.

    Models that do not use the library's attention interface do so anyway.
    """
    configs = attention_configs(model)
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


def attention_configs(model: nn.Module) -> list[Any]:
    """Return the configs of a model and all its parts, each of which names an implementation of attention."""
    found: dict[int, Any] = {}
    pending: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    while pending:
        config = pending.pop()
        if id(config) not in found and hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
            pending += [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return list(found.values())
