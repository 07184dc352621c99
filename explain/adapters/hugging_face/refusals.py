"""Models that cannot be traced, each with one line that names the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from explain.adapters.hugging_face.explicit import attention_configs
from explain.adapters.watching import check_evaluation
from explain.trace import TraceError

CACHES = ("past_key_values", "cache", "cache_position")


def check_model(model: nn.Module) -> None:
    """Raise :class:`TraceError` if a model cannot be traced, because of its mode or how it was loaded."""
    name = type(model).__name__
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        raise TraceError(f"{name} is compiled: trace the model from before torch.compile")
    check_evaluation(model)
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        raise TraceError(f"{name} is quantised, and its gradients are not exact: load it without quantization_config")
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    if len(places) > 1 or getattr(model, "_device_mesh", None) is not None:
        raise TraceError(f"{name} is sharded over several devices: load it on one, without device_map or tp_plan")
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise TraceError(f"{name} checkpoints its gradients: call gradient_checkpointing_disable()")
    for config in attention_configs(model):
        if "flash" in str(config._attn_implementation_internal):
            raise TraceError(f"{name} uses flash attention: load it with attn_implementation='sdpa' or 'eager'")


def check_inputs(inputs: Mapping[str, Any]) -> None:
    """Raise :class:`TraceError` if the inputs contain a cache, which hides earlier tokens."""
    cache = next((name for name in CACHES if inputs.get(name) is not None), None)
    if cache is not None:
        raise TraceError(f"inputs have a cache ({cache}), which hides the earlier tokens: leave it out")
