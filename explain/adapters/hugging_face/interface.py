"""Attention of a ``transformers`` model through the library's attention interface, for the time of one forward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch import Tensor, nn

from explain.trace import TraceError

_NUMBERS = count()


@contextmanager
def watched_attention(model: nn.Module, see: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Call ``see(module, A)`` for every attention that the model computes inside the block.

    A is the live tensor [B, H, n_s, n_q] that multiplies the values. It is computed by the eager attention of the
    module's own file, and with the masks of eager attention. Afterwards, every config and the library's registries are
    as before.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    def attend(module: nn.Module, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        output, attention = _eager(module)(module, *args, **options)
        see(module, attention)
        return output, attention

    # The library compares names with "sdpa", "flash" and "flex", so the name contains none of them.
    name = f"explain_{next(_NUMBERS)}"
    configs = attention_configs(model)
    before = [config._attn_implementation_internal for config in configs]
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, eager_mask)  # without it, a causal model would attend to the future
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
        AttentionInterface._global_mapping.pop(name, None)
        AttentionMaskInterface._global_mapping.pop(name, None)


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


def _eager(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the eager attention of the file that defines a module."""
    for kind in type(module).__mro__:
        function: Callable[..., tuple[Tensor, Tensor]] | None = getattr(
            sys.modules.get(kind.__module__), "eager_attention_forward", None
        )
        if function is not None:
            return function
    raise TraceError(f"{type(module).__name__}: its file has no eager attention, so its attention cannot be traced")
