"""Kinds of NumPy arrays that the rooms hand to one another."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
