"""One small random model of every kind that can be traced, in any precision, with a padded batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from adapter_models import TEXTS, images, lxmert_inputs, tiny_clip, tiny_lxmert, tiny_vilt, vilt_inputs
from models import pictures, random_caption, random_vqa, samples
from torch import nn

from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt
from explain.capture.needs import Needs
from explain.traced import Traced

Made = tuple[nn.Module, Callable[[Needs], Traced]]  #: a model, and a function that traces it on its batch


def cast(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {name: each.to(dtype) if each.is_floating_point() else each for name, each in inputs.items()}


def _vqa(mapper: str, dtype: torch.dtype) -> Made:
    model = random_vqa(mapper, dtype=dtype)
    pixels, questions = samples(4)
    return model, lambda needs: trace_vqa(model, pixels.to(dtype), questions, needs=needs)


def _caption(mapper: str, dtype: torch.dtype) -> Made:
    model = random_caption(mapper, dtype=dtype)
    ids = [model.encoder.tokenizer.encode(text) for text in ("a red circle", "two stars")]
    return model, lambda needs: trace_captions(model, pictures(2).to(dtype), ids, needs)


def _open_clip(dtype: torch.dtype) -> Made:
    model = tiny_clip(dtype)
    pixels = images(torch.float32).to(dtype)
    return model, lambda needs: trace_open_clip(model, pixels, TEXTS, needs=needs)


def _vilt(dtype: torch.dtype) -> Made:
    model, inputs = tiny_vilt(dtype), cast(vilt_inputs(torch.float32), dtype)
    return model, lambda needs: trace_vilt(model, inputs, needs=needs)


def _lxmert(dtype: torch.dtype) -> Made:
    model, inputs = tiny_lxmert(dtype), cast(lxmert_inputs(torch.float32), dtype)
    return model, lambda needs: trace_lxmert(model, inputs, needs=needs)


#: Functions that build each model in a precision; models and inputs of two precisions have the same float32 values.
MODELS: dict[str, Callable[[torch.dtype], Made]] = {
    "vqa a": lambda dtype: _vqa("a", dtype),
    "vqa b": lambda dtype: _vqa("b", dtype),
    "caption a": lambda dtype: _caption("a", dtype),
    "caption b": lambda dtype: _caption("b", dtype),
    "open_clip": _open_clip,
    "vilt": _vilt,
    "lxmert": _lxmert,
}
