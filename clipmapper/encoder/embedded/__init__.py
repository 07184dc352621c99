"""The encoder that ships with the project: its open_clip config, its weights, and its token table.

CLIP's BPE has 49,408 tokens and the pre-training captions use about a hundred of them. The file holds only those rows;
all others are seeded random numbers, distinct for distinct words, and are made anew when the file is read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import Tensor

EMBEDDED_MODEL = "shapes-tiny"
_FOLDER = Path(__file__).resolve().parent
EMBEDDED_WEIGHTS = _FOLDER / f"{EMBEDDED_MODEL}.safetensors"
TOKEN_STD = 0.05
_TABLE, _ROWS, _IDS = "token_embedding.weight", "token_embedding.rows", "token_embedding.ids"


def register_embedded() -> None:
    """Makes open_clip know the embedded model by name."""
    if EMBEDDED_MODEL not in open_clip.list_models():
        open_clip.add_model_config(_FOLDER / f"{EMBEDDED_MODEL}.json")


def seeded_token_table(tokens: int, width: int) -> Tensor:
    """The table before training, [tokens, width]; the same numbers on every machine."""
    numbers = np.random.Generator(np.random.PCG64(0)).standard_normal((tokens, width), dtype=np.float32)
    return torch.from_numpy(numbers * TOKEN_STD)


def shorten_token_table(state: dict[str, Tensor], trained: Tensor) -> dict[str, Tensor]:
    """The state dict with only the rows ``trained`` (token ids) of its token table."""
    short = {name: tensor for name, tensor in state.items() if name != _TABLE}
    return short | {_ROWS: state[_TABLE][trained].clone(), _IDS: trained}


def restore_token_table(state: dict[str, Tensor], tokens: int = 49408) -> dict[str, Tensor]:
    """The inverse of :func:`shorten_token_table`; a state dict with a whole table stays as it is."""
    if _ROWS not in state:
        return state
    whole = {name: tensor for name, tensor in state.items() if name not in (_ROWS, _IDS)}
    table = seeded_token_table(tokens, state[_ROWS].shape[1])
    table[state[_IDS]] = state[_ROWS].to(table.dtype)
    return whole | {_TABLE: table}
