"""Families of models: each file says how to run a family, and where its image and text tokens are."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from explain.adapters.hugging_face.plan import Plan
from explain.targets import Answer
from explain.trace import TraceError

# The file of each family, by the config's model_type.
FAMILIES = {
    "bert": "encoders",
    "vit": "encoders",
    "dinov2": "encoders",
    "dinov2_with_registers": "encoders",
    "clip": "dual",
    "chinese_clip": "dual",
    "siglip": "dual",
    "siglip2": "dual",
    "llava": "tower",
    "paligemma": "tower",
    "gemma3": "tower",
    "internvl": "tower",
    "llava_next": "llava_next",
    "llava_onevision": "llava_next",
    "idefics3": "idefics",
    "smolvlm": "idefics",
    "blip": "blip",
    "flava": "flava",
    "visual_bert": "visual_bert",
    "blip-2": "blip2",
    "instructblip": "blip2",
    "mllama": "mllama",
    "qwen2_vl": "qwen_vl",
    "qwen2_5_vl": "qwen_vl",
    "qwen3_vl": "qwen_vl",
    "qwen3_5": "qwen_vl",
}


def plan_of(model: nn.Module, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a model and a batch.

    Raises:
        TraceError: The model's family is not supported, or its inputs do not fit.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FAMILIES:
        raise TraceError(f"{type(model).__name__}: no adapter for model_type {kind!r}; choose {', '.join(FAMILIES)}")
    family = import_module(f"{__name__}.{FAMILIES[kind]}")
    plan: Plan = family.plan(model, inputs, answer, tokenizer)
    return plan
