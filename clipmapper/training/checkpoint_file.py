"""Checkpoint files: written completely or not at all, with a checksum of their content, and read with verification.

The file is what ``torch.save`` writes, with the key ``checksum`` beside Lightning's keys
(:mod:`clipmapper.storage.checksums`). Reading also compares the checksums of the zip archive that the file is, which
earlier versions wrote too.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from clipmapper.errors import UserError
from clipmapper.files import check_regular, write_atomic
from clipmapper.storage.checksums import KEY, checksum, damaged


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint with its checksum.

    Raises:
        OSError: The file can't be written, for example on a full disk; an earlier file at ``path`` is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bare = {name: value for name, value in content.items() if name != KEY}
    encoded = BytesIO()
    torch.save({**bare, KEY: checksum(_pieces(bare))}, encoded)
    write_atomic(path, encoded.getbuffer())


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint without its checksum, read without running pickled code.

    Raises:
        UserError: The file is missing, no regular file, damaged, or no dictionary that ``torch.save`` wrote.
    """
    try:
        check_regular(path, "weights")
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise damaged(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that damaged bytes seem to name
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path}: no such file; train first, or give checkpoint=PATH") from None
    except UserError as error:
        raise UserError(f"checkpoint {error}") from error
    except Exception as error:  # damaged files raise errors of many types
        raise UserError(
            f"checkpoint {path}: cannot be read ({type(error).__name__}); give one that train wrote"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path} was not written by this project; give one that scripts/train.py wrote")
    held = content.pop(KEY, None)
    if held is not None and held != checksum(_pieces(content)):
        raise UserError(f"checkpoint {damaged(path)}")
    return content


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    """Yield a nested value as bytes: tensors by type, shape and content, everything else by its representation."""
    if isinstance(value, Mapping):
        yield b"{%d" % len(value)
        for name, each in value.items():
            yield f"{name!r}:".encode("utf-8", "surrogatepass")
            yield from _pieces(each)
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for each in value:
            yield from _pieces(each)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    else:
        yield f"{value!r} ".encode("utf-8", "surrogatepass")
