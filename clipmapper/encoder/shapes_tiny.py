"""The embedded model ``shapes-tiny``: its registration with open_clip, and the short form of its token table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

EMBEDDED_MODEL = "shapes-tiny"
_FOLDER = Path(__file__).resolve().parent / "embedded"
EMBEDDED_WEIGHTS = _FOLDER / f"{EMBEDDED_MODEL}.safetensors"
TOKEN_STD = 0.05
# CLIP's BPE has 49,408 tokens, and the pre-training captions use about a hundred of them. The embedded file contains
# only these rows of the token table. All other rows are seeded random numbers, so that they are different for different
# words.
_TABLE, _ROWS, _IDS = "token_embedding.weight", "token_embedding.rows", "token_embedding.ids"


def register_embedded() -> None:
    """Register the embedded model with open_clip, so that it can be created by name."""
    if EMBEDDED_MODEL not in open_clip.list_models():
        open_clip.add_model_config(_FOLDER / f"{EMBEDDED_MODEL}.json")


def seeded_token_table(tokens: int, width: int) -> Tensor:
    """Return the token table before training, [tokens, width], with the same numbers on every machine."""
    numbers = np.random.Generator(np.random.PCG64(0)).standard_normal((tokens, width), dtype=np.float32)
    return torch.from_numpy(numbers * TOKEN_STD)


def shorten_token_table(state: dict[str, Tensor], trained: Tensor) -> dict[str, Tensor]:
    """Return the state dict with its token table reduced to the rows ``trained`` (token ids)."""
    short = {name: tensor for name, tensor in state.items() if name != _TABLE}
    return short | {_ROWS: state[_TABLE][trained].clone(), _IDS: trained}


def restore_token_table(state: dict[str, Tensor], tokens: int = 49408) -> dict[str, Tensor]:
    """Undo :func:`shorten_token_table`; a state dict with a complete table is returned unchanged.

    The rows that are not in the state dict are those of :func:`seeded_token_table`.
    """
    if _ROWS not in state:
        return state
    whole = {name: tensor for name, tensor in state.items() if name not in (_ROWS, _IDS)}
    table = seeded_token_table(tokens, state[_ROWS].shape[1])
    table[state[_IDS]] = state[_ROWS].to(table.dtype)
    return whole | {_TABLE: table}
