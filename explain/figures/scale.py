"""Scores as colours: one map for scores of one sign, one for both, zero always colourless."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize
from numpy.typing import ArrayLike, NDArray

OPACITY = 0.82
# Below 1, so that weak scores are seen: the colour comes quicker than the map alone would bring it.
OPACITY_POWER = 0.6
ROUNDING = 1e-6  # negative scores this small beside the largest are rounding errors
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Scores from 0 (or ``-limit`` if ``signed``) to ``limit``."""

    limit: float
    signed: bool

    @classmethod
    def over(cls, arrays: Iterable[Array]) -> Scale:
        """The scale that just holds every score of the arrays."""
        scores = np.concatenate([np.ravel(a) for a in arrays])
        limit = float(np.abs(scores).max(initial=0))
        return cls(limit, bool(scores.min(initial=0) < -ROUNDING * limit))

    @classmethod
    def pair(cls, first: Iterable[Array], second: Iterable[Array]) -> tuple[Scale, Scale]:
        """Scales of two kinds of scores: a limit each, since one kind often weighs more, but one sign convention."""
        one, other = cls.over(first), cls.over(second)
        signed = one.signed or other.signed
        return cls(one.limit, signed), cls(other.limit, signed)

    @property
    def norm(self) -> Normalize:
        """For shares of the limit, see :meth:`share`."""
        return Normalize(-1 if self.signed else 0, 1)

    @property
    def colormap(self) -> Colormap:
        """Transparent at zero; perceptually uniform (one sign) or diverging (both), and safe for the colour-blind."""
        return _SIGNED if self.signed else _UNSIGNED

    def share(self, scores: Array) -> Array:
        """Scores as shares of the limit, which keeps tiny and huge ones exact."""
        return scores / self.limit if self.limit else np.zeros_like(scores)

    def on_white(self, scores: Array) -> Array:
        """The colours of scores on a white page, RGB from 0 to 1, [..., 3]."""
        rgba = self.colormap(self.norm(self.share(scores)))
        return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def finite(scores: ArrayLike, name: str) -> Array:
    """The scores as an array.

    Raises:
        ValueError: naming them, where one is not a finite number.
    """
    array = np.asarray(scores, dtype=np.float64)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name}: {bad} of {array.size} are not finite numbers")
    return array


def checked_scale(scale: str) -> None:
    """Raise ValueError for a choice of scales that there is not."""
    if scale not in ("each", "common"):
        raise ValueError(f"scale is each or common, not {scale!r}")


def readable_on(colour: Array) -> str:
    """Black or white, whichever stands out more from an RGB colour (WCAG 2.1, relative luminance)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _with_opacity(colours: Array, share: Array) -> ListedColormap:
    colours[:, 3] = OPACITY * np.abs(share) ** OPACITY_POWER
    return ListedColormap(colours)


def _unsigned() -> ListedColormap:
    share = np.linspace(0, 1, 256)
    return _with_opacity(matplotlib.colormaps["magma_r"](0.05 + 0.8 * share), share)


def _signed() -> ListedColormap:
    share = np.linspace(-1, 1, 257)  # odd, so that one entry is zero
    return _with_opacity(matplotlib.colormaps["RdBu_r"](0.5 + 0.44 * share), share)


_UNSIGNED, _SIGNED = _unsigned(), _signed()
