"""TorchScript archives in the layout of OpenAI's CLIP files, with any weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

SIZES = {"input_resolution": 24, "context_length": 12, "vocab_size": 49408}


class Holder(nn.Module):
    """Modules with the parameters of a state dict, by its names, as in OpenAI's files."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            parts.setdefault(first, {})[rest] = tensor
        for first, inner in parts.items():
            if "" in inner:
                self.register_parameter(first, nn.Parameter(inner[""], requires_grad=False))
            else:
                self.add_module(first, Holder(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


def openai_archive(state: dict[str, Tensor], path: Path) -> Path:
    """Save a state dict as OpenAI's code does: with the sizes and the mask as buffers."""
    model = Holder(state)
    for name, size in SIZES.items():
        model.register_buffer(name, torch.tensor(size))
    model.register_buffer("attn_mask", torch.full((12, 12), -torch.inf).triu(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.trace(model, torch.ones(1)), str(path))
    return path
