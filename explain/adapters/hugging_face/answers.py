"""Given answers, added to the text so that one forward pass reads every word of them (teacher forcing)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explain.targets import Answer
from explain.trace import TraceError


def with_answer(
    inputs: Mapping[str, Any], answer: Answer | None, token_type: int = 0
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Return the inputs with the answer after each text, and which tokens are of the text and of the answer.

    The tokens are moved to the front of each text, so that padding comes last whatever the processor did. Inputs with
    one number per token are extended by zeros, the attention mask by ones.

    Args:
        inputs: The model's inputs.
        answer: The answer, or None.
        token_type: The ``token_type_ids`` of the answer's tokens.

    Returns:
        The inputs, the valid tokens and the tokens of the answer, bool [B, L].

    Raises:
        TraceError: The inputs have ``position_ids``.
    """
    ids: Tensor = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    valid = mask.bool()
    if answer is None:
        return dict(inputs), valid, torch.zeros_like(valid)
    if inputs.get("position_ids") is not None:
        raise TraceError("inputs have position_ids, which do not fit an added answer: leave them out")
    rows = answer.rows(len(ids))
    length = max(int(own.sum()) + len(row) for own, row in zip(valid, rows, strict=True))
    extended = dict(inputs, attention_mask=mask)
    for name, tensor in extended.items():
        if isinstance(tensor, Tensor) and tensor.shape == ids.shape:
            whole = tensor.new_zeros(len(ids), length)
            for b, row in enumerate(rows):
                kept = tensor[b][valid[b]]
                same = {"attention_mask": 1, "token_type_ids": token_type}.get(name, 0)
                added = row if name == "input_ids" else [same] * len(row)
                whole[b, : len(kept)] = kept
                whole[b, len(kept) : len(kept) + len(row)] = torch.as_tensor(added, dtype=tensor.dtype)
            extended[name] = whole
    tiles = inputs.get("cross_attention_mask")  # which tiles each token sees: an answer's tokens see those of the last
    if isinstance(tiles, Tensor):
        seen = tiles.new_zeros(len(ids), length, *tiles.shape[2:])
        for b, row in enumerate(rows):
            kept = tiles[b][valid[b]]
            seen[b, : len(kept)], seen[b, len(kept) : len(kept) + len(row)] = kept, kept[-1]
        extended["cross_attention_mask"] = seen
    place = torch.arange(length, device=ids.device)
    counts = valid.sum(1, keepdim=True)
    sizes = torch.tensor([[len(row)] for row in rows], device=ids.device)
    return extended, place < counts + sizes, (place >= counts) & (place < counts + sizes)
