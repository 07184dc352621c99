"""Scores that can be drawn."""

import numpy as np
from numpy.typing import ArrayLike

from explain.figures.colours import Array


def finite(scores: ArrayLike, name: str) -> Array:
    """The scores as an array.

    Raises:
        ValueError: naming them, where one is not a finite number.
    """
    array = np.asarray(scores, dtype=np.float64)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name}: {bad} of {array.size} are not finite numbers")
    return array
