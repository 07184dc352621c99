"""Refusal of weights that are no numbers."""

from __future__ import annotations

from collections.abc import Iterable

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
