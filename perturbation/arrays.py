"""Types of the NumPy arrays that the subpackages pass to one another."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
