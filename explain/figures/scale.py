"""Colour scales of scores: one colour map for scores of one sign, one for both signs; zero has no colour in both.

All colours are darker than a pale photo (:data:`explain.figures.photo.PALE`): the larger a score is, the darker is its
place on any photo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize
from numpy.typing import ArrayLike, NDArray

OPACITY = 0.82  # opacity of the largest score
OPACITY_POWER = 0.6  # opacity grows with this power of the score; a power below 1 makes weak scores visible
ROUNDING = 1e-6  # negative scores this small, relative to the largest score, are rounding errors
ROBUST = 2.0  # most that the limit of a common scale exceeds the median of the explainers' largest scores
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """A colour scale from 0 (or ``-limit`` if ``signed``) to ``limit``."""

    limit: float
    signed: bool
    exceeded: bool = False  #: whether there are larger scores, which have the colour of the limit

    @classmethod
    def over(cls, arrays: Iterable[Array]) -> Scale:
        """Return the smallest scale that contains all scores of the arrays."""
        scores = np.concatenate([np.zeros(0), *(np.ravel(a) for a in arrays)])
        limit = float(np.abs(scores).max(initial=0))
        return cls(limit, bool(scores.min(initial=0) < -ROUNDING * limit))

    @classmethod
    def pair(cls, first: Iterable[Array], second: Iterable[Array]) -> tuple[Scale, Scale]:
        """Return the scales of two kinds of scores, such as patches and words.

        Each kind has a separate limit, because one is often larger than the other. Either both scales are signed or
        neither.
        """
        one, other = cls.over(first), cls.over(second)
        signed = one.signed or other.signed
        return cls(one.limit, signed), cls(other.limit, signed)

    @classmethod
    def common(cls, explainers: Sequence[Iterable[Array]]) -> Scale:
        """Return one scale for several explainers, on which large scores of a single one do not blank the others.

        The limit is the largest score, but at most ``ROBUST`` times the (lower) median of the explainers' largest
        scores; an explainer without any score other than zero does not count.
        """
        own = [cls.over(arrays) for arrays in explainers]
        limits = sorted(scale.limit for scale in own if scale.limit)
        largest = limits[-1] if limits else 0.0
        limit = min(largest, ROBUST * limits[(len(limits) - 1) // 2]) if limits else 0.0
        return cls(limit, any(scale.signed for scale in own), limit < largest)

    @classmethod
    def common_pair(cls, first: Sequence[Iterable[Array]], second: Sequence[Iterable[Array]]) -> tuple[Scale, Scale]:
        """Return the common scales of two kinds of scores, such as patches and words; both are signed or neither is."""
        one, other = cls.common(first), cls.common(second)
        signed = one.signed or other.signed
        return replace(one, signed=signed), replace(other, signed=signed)

    @property
    def norm(self) -> Normalize:
        """Normalisation of values returned by :meth:`share`."""
        return Normalize(-1 if self.signed else 0, 1)

    @property
    def colormap(self) -> Colormap:
        """A colour map that is transparent at zero and suitable for colour-blind readers.

        It is perceptually uniform if scores have one sign, and diverging if they have both.
        """
        return _SIGNED if self.signed else _UNSIGNED

    def share(self, scores: Array) -> Array:
        """Return scores divided by the limit, at most 1 in size, which keeps tiny and huge scores exact."""
        return np.clip(scores / self.limit, -1, 1) if self.limit else np.zeros_like(scores)

    def on_white(self, scores: Array) -> Array:
        """Return the colours of scores on a white page, RGB from 0 to 1, [..., 3]."""
        rgba = self.colormap(self.norm(self.share(scores)))
        return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def finite(scores: ArrayLike, name: str) -> Array:
    """Return the scores as an array.

    Raises:
        ValueError: A score is not a finite number; the message contains ``name``.
    """
    array = np.asarray(scores, dtype=np.float64)
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name}: {bad} of {array.size} are not finite numbers")
    return array


def checked_scale(scale: str) -> None:
    """Raise ValueError for an unknown scale name."""
    if scale not in ("each", "common"):
        raise ValueError(f"scale must be each or common, not {scale!r}")


def readable_on(colour: Array) -> str:
    """Return black or white, the one with more contrast to an RGB colour (WCAG 2.1, relative luminance)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _with_opacity(colours: Array, share: Array) -> ListedColormap:
    colours[:, 3] = OPACITY * np.abs(share) ** OPACITY_POWER
    return ListedColormap(colours)


def _unsigned() -> ListedColormap:
    share = np.linspace(0, 1, 256)
    return _with_opacity(matplotlib.colormaps["magma_r"](0.4 + 0.42 * share), share)


def _signed() -> ListedColormap:
    share = np.linspace(-1, 1, 257)  # odd, so that one entry is zero
    return _with_opacity(matplotlib.colormaps["RdBu_r"](0.5 + 0.35 * np.sign(share) + 0.14 * share), share)


_UNSIGNED, _SIGNED = _unsigned(), _signed()
