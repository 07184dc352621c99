"""Comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perturbation.measures.areas import Array
from perturbation.removal.order import kept_masks


class EraserMasks(NamedTuple):
    """The inputs to read for comprehensiveness and sufficiency; bool [B, F, n], True where the token stays."""

    without_top: NDArray[np.bool_]
    only_top: NDArray[np.bool_]


def eraser_masks(scores: NDArray[np.floating], removable: NDArray[np.bool_], shares: Sequence[float]) -> EraserMasks:
    """The kept masks at F shares of the removable tokens, each above 0 and at most 1.

    The top share holds the ceil(share·n) highest of a sample's n removable tokens (``removed_count``), ties go by
    position. ``without_top`` is the positive order's mask at that step. ``only_top`` removes the other removable tokens
    instead: not the negative order at 1 − share, which rounds the other way and breaks ties otherwise. Tokens that are
    not removable stay in both. A sample without removable tokens keeps everything in both: both its measures are 0.

    Args and raises: as ``perturbation.removal.order.removal_order``.
    """
    without_top = kept_masks(scores, removable, shares, "positive")
    return EraserMasks(without_top, ~without_top | ~removable[:, None, :])


def comprehensiveness(full: NDArray[np.floating], without_top: NDArray[np.floating]) -> Array:
    """p(full) − p(without the top share), [B, F]: high where the explanation names what the answer needs.

    DeYoung et al. 2020 (ERASER), equation 1, one number a share (the paper also averages over shares). Every p is the
    probability of the answer that was predicted from the full input.

    Args:
        full: [B], probability with every token.
        without_top: [B, F], probabilities under ``eraser_masks(...).without_top``.

    Raises: ValueError where the shapes do not fit.
    """
    return _drop(full, without_top)


def sufficiency(full: NDArray[np.floating], only_top: NDArray[np.floating]) -> Array:
    """p(full) − p(only the top share), [B, F]: low where the explanation names what suffices for the answer.

    DeYoung et al. 2020, equation 2. As ``comprehensiveness``, but with the probabilities under
    ``eraser_masks(...).only_top``.
    """
    return _drop(full, only_top)


def _drop(full: NDArray[np.floating], masked: NDArray[np.floating]) -> Array:
    if full.ndim != 1 or masked.ndim != 2 or len(full) != len(masked):
        raise ValueError(f"full {full.shape} must be [B], and the masked probabilities {masked.shape} must be [B, F]")
    return np.asarray(full, dtype=np.float64)[:, None] - masked
