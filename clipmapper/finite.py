"""Refusal of weights that are no numbers, when they are read, and when they are written in half precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from clipmapper.errors import UserError


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise UserError if a tensor holds NaN or an infinity.

    Args:
        tensors: The tensors with their names.
        where: The file, as the message begins, such as ``encoder.weights=FILE``.
    """
    for name, tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"{where}: {count} of the {tensor.numel()} values of {name} are NaN or infinite; "
                "give a file of a training that did not diverge, or download it again"
            )


def halved(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return tensors with their floating-point numbers in float16, on the CPU.

    Args:
        tensors: The tensors by name.
        where: The file that they are written to, as the message begins.

    Raises:
        UserError: A number is NaN, infinite, or larger than float16 can hold.
    """
    halves: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        given = tensor.detach().cpu()
        halves[name] = (given.half() if given.is_floating_point() else given).contiguous()
        if not bool(torch.isfinite(halves[name]).all()):
            largest = float(given.abs().max())
            large = f"values up to {largest:.3g}, and float16 holds 65504 at most"
            what = large if math.isfinite(largest) else "NaN or infinite values"
            raise UserError(f"{where}: {name} has {what}; train with a lower learning rate or more weight decay")
    return halves
