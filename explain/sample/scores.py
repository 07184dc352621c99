"""An explainer's scores of one sample: a map for each image, and a score for each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from explain.explainers.base.explainer import Explainer
from explain.sample.maps import Array, photo_maps
from explain.sample.traced import TracedSample


@dataclass(frozen=True, eq=False)
class Scores:
    """An explainer's scores."""

    images: Sequence[Array]  #: of the patches of each image, [rows, cols]
    words: Array  #: of the words, [n_words]

    @classmethod
    def of(cls, sample: TracedSample, explainer: Explainer) -> Scores:
        """Score a sample by one explainer.

        Raises:
            TraceError: The trace lacks a field that the explainer needs.
        """
        traced = sample.traced
        found = replace(traced, words=[list(sample.words)] * len(traced.logits)).explain(explainer)
        nothing = torch.zeros(1, 0)
        words = found.get("text", nothing).mean(0).detach().double().cpu().numpy()
        return cls(photo_maps(sample, found.get("image", nothing).mean(0)), np.asarray(words))
