"""Weights files: the trained part of a model as float16 safetensors, with its card and a checksum in the header.

They are smaller than checkpoints and contain no optimizer state, so that models can be kept in a repository.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.files import check_regular, write_atomic
from clipmapper.finite import halved

SUFFIX = ".safetensors"


def write_weights(path: Path, card: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write weights in float16, with the card (plain values) in the file's header.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
        UserError: A weight does not fit in float16.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = halved(weights, f"weights {path}")
    about = json.dumps(card)
    write_atomic(path, save(halves, {"card": about, "checksum": _checksum(about, halves)}))


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the card and the weights in float32.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file is damaged, or another program wrote it.
    """
    try:
        check_regular(path, "weights")
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            halves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = header["card"]
        if any(tensor.dtype != torch.float16 for tensor in halves.values()):
            raise ValueError("a tensor is not in float16")
        if header["checksum"] != _checksum(about, halves):
            raise ValueError("the checksum differs")
        return json.loads(about), {name: tensor.float() for name, tensor in halves.items()}
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        reason = f"damaged, or not written by scripts/train.py ({error})"
        raise UserError(f"weights {path}: {reason}; copy the file again, or train again") from error


def check_output(path: Path) -> None:
    """Check, before a training, that its weights can be written to a file: it is new, or contains such weights.

    Raises:
        UserError: Another file is there, or its folder cannot be written.
    """
    if path.exists():
        try:
            read_weights(path)
        except (UserError, OSError) as error:
            raise UserError(f"output={path}: exists and has no weights that train wrote; give a new file") from error
    folder = next(each for each in path.absolute().parents if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"output={path}: {folder} is not a writable folder; give another file") from error


def _checksum(card: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(card.encode(), digest_size=16)
    for name in sorted(weights):
        digest.update(f"{name} {list(weights[name].shape)}".encode())
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()
