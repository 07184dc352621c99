"""Mean and covariance of training images, and the distance of other images from them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FEWEST_IMAGES = 400  # a quarter of them are 100, without which there is no 99th percentile
RIDGE = 0.01  # share of the mean variance that is added to every variance, since some directions have almost none


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Mean and covariance of training images in a feature space of width D."""

    mean: np.ndarray  #: [D]
    #: Lower triangle W, [D, D]: W Wᵀ is the inverse covariance, divided by the square of the distance that 99 % of the
    #: held-out training images do not exceed.
    whitening: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> ImageStatistics | None:
        """Fit three of every four images, and scale distances by those of the others, which are held out.

        Args:
            features: Features of the images, [n, D].

        Returns:
            The statistics; None for fewer than ``FEWEST_IMAGES`` images, or for images that are all the same.
        """
        if len(features) < FEWEST_IMAGES or (features == features[0]).all():
            return None
        held_out = np.arange(len(features)) % 4 == 3
        fitted = features[~held_out].astype(np.float64)
        covariance = np.cov(fitted.T) + RIDGE * fitted.var(0).mean() * np.eye(fitted.shape[1])
        unscaled = cls(fitted.mean(0), np.linalg.cholesky(np.linalg.inv(covariance)))
        return cls(unscaled.mean, unscaled.whitening / np.quantile(unscaled.distance(features[held_out]), 0.99))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of images, [n], from their features, [n, D]; 1 is the 99th percentile."""
        distances: np.ndarray = np.linalg.norm((features - self.mean) @ self.whitening, axis=1)
        return distances

    def entry(self) -> dict[str, str]:
        """Return the statistics as an entry of a card: float32 in base64, the triangle row by row."""
        triangle = self.whitening[np.tril_indices(len(self.mean))]
        return {name: _pack(values) for name, values in (("mean", self.mean), ("whitening", triangle))}

    @classmethod
    def read(cls, entry: Mapping[str, str]) -> ImageStatistics:
        """Return the statistics of a card's entry; the inverse of :meth:`entry` up to float32."""
        mean = _unpack(entry["mean"])
        whitening = np.zeros((len(mean), len(mean)))
        whitening[np.tril_indices(len(mean))] = _unpack(entry["whitening"])
        return cls(mean, whitening)


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
