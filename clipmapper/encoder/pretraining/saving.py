"""Files of a pre-training: a check for space before it, and weights that are kept if a disk is full after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised

from clipmapper.encoder.pretraining.train import Pretraining
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, shorten_token_table
from clipmapper.errors import UserError
from clipmapper.files import check_regular, write_atomic
from clipmapper.finite import halved

WEIGHTS = f"{EMBEDDED_MODEL}.safetensors"
_SPACE = 4 * 2**20  # bytes, more than the weights take


def check_space(folders: Sequence[Path]) -> None:
    """Make the folders, and check that the weights can be written to each.

    Raises:
        UserError: A folder cannot be made or is not writable, its disk is full, or it has other weights of this name.
    """
    for folder in folders:
        _check_own(folder / WEIGHTS)
        probe = folder / f".{WEIGHTS}.space"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(probe, bytes(_SPACE))
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{folder}: the weights could not be written there ({error.strerror}); give a writable folder with "
                f"{_SPACE // 2**20} MB of space"
            ) from error


def _check_own(file: Path) -> None:
    """Raise UserError if a file exists that is not the weights of a pre-training."""
    if not os.path.lexists(file):
        return
    try:
        check_regular(file, "weights")
        with safe_open(file, "pt") as content:
            own = (content.metadata() or {}).get("model") == EMBEDDED_MODEL
    except (UserError, OSError, SafetensorError):
        own = False
    if not own:
        raise UserError(f"{file}: exists and was not written by pretrain_clip; give another folder, or remove it")


def save(model: Pretraining, folder: Path) -> None:
    """Save the weights in half precision, with only those rows of the token table that were trained.

    Raises:
        OSError: The file cannot be written; an earlier one is unchanged.
        UserError: A weight does not fit in float16.
    """
    state = shorten_token_table(model.weights(), torch.tensor(model.words.used))
    half = halved({name: tensor for name, tensor in state.items() if tensor.ndim or tensor.numel()}, f"{folder}")
    write_atomic(folder / WEIGHTS, serialised(half, metadata={"model": EMBEDDED_MODEL}))


def save_result(model: Pretraining, folders: Sequence[Path]) -> None:
    """Save the weights of a finished pre-training to all folders.

    Raises:
        UserError: A folder cannot be written. The message says where the weights are: in another of the folders, or in
            a new one for temporary files.
    """
    failed: dict[Path, OSError] = {}
    for folder in folders:
        try:
            save(model, folder)
        except OSError as error:
            failed[folder] = error
    if not failed:
        return
    first, why = next((folder, error.strerror) for folder, error in failed.items())
    kept = next((folder for folder in folders if folder not in failed), None) or _save_elsewhere(model)
    if kept is None:
        raise UserError(f"{first}: the weights cannot be written ({why}), nor to {tempfile.gettempdir()}")
    raise UserError(
        f"{first}: the weights cannot be written ({why}); they are kept as {kept / WEIGHTS}: make space, and copy them"
    )


def _save_elsewhere(model: Pretraining) -> Path | None:
    """Save the weights to a new folder for temporary files, and return it; None if that fails too."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="clipmapper-"))
        save(model, folder)
    except OSError:
        return None
    return folder
