"""Tensors of TorchScript archives, the format of OpenAI's own CLIP files.

``torch.jit.load`` would load the code in such a file, and ``torch.load`` does not read it without that. An archive is a
zip file whose ``data.pkl`` has the same layout as in a PyTorch file, with modules instead of a dictionary. Here this
part alone is given to PyTorch's restricted unpickler, which runs no code.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


class _Module:
    """A module in an archive: its tensors, its submodules and other values, by name."""

    values: dict[str, Any]

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.values = dict(values)


def is_archive(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive on the CPU, by the names of a state dict.

    Raises:
        Exception: The file is damaged, or contains something else than modules with tensors, numbers and texts. The
            types are those of ``zipfile`` and of ``torch.load``.
    """
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        for member in archive.infolist():
            _, _, name = member.filename.partition("/")
            if name not in ("data.pkl", "version", "byteorder") and not name.startswith("data/"):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed, which TorchScript does not do")
            content = archive.read(member)
            copy.writestr(f"archive/{name}", content)
            if name == "data.pkl":
                modules = _names_of_modules(content)
    plain.seek(0)
    allowed: list[Any] = [(_Module, name) for name in modules]
    allowed += [(list, f"torch.jit._pickle.{name}") for name in _LISTS]
    with torch.serialization.safe_globals(allowed):
        top = torch.load(plain, map_location="cpu", weights_only=True)
    if not isinstance(top, _Module):
        raise ValueError(f"it contains a {type(top).__name__} instead of a module")
    return dict(_tensors(top, "", set()))


def _names_of_modules(pickled: bytes) -> set[str]:
    """Return the names of the modules' classes, none of which is a class of Python."""
    names = (str(value).replace(" ", ".") for code, value, _ in pickletools.genops(pickled) if code.name == "GLOBAL")
    return {name for name in names if name.startswith("__torch__.")}


def _tensors(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    seen.add(id(module))
    for name, value in module.values.items():
        if isinstance(value, Tensor):
            yield prefix + name, value.detach()
        elif isinstance(value, _Module) and id(value) not in seen:
            yield from _tensors(value, f"{prefix}{name}.", seen)
