"""A function of images and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clipmapper.errors import UserError
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import Images, Scored, Texts


class FunctionScorer:
    """A function (images, texts) → scores.

    Args:
        function: Takes n images (PIL) and n texts and returns n numbers; both lists contain None where the samples have
            no image or no text.
    """

    value = "score"
    answers = False
    drops = False
    tokens: Mapping[str, str] = {}

    def __init__(self, function: Callable[[list[Any], list[Any]], ArrayLike]) -> None:
        self.function = function

    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return None for each pair: a function has one score."""
        return [None] * len(pairs)

    def text(self, asked: Any) -> str:
        """Return no text."""
        return ""

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Keep nothing: images and texts are read together."""

    def score(self, images: Images, texts: Texts, asked: Sequence[Any], say: bool) -> Scored:
        """Return the scores of n pairs.

        Raises:
            UserError: The function returns another number of scores.
        """
        found = self.function(list(images), list(texts))
        scores = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=np.float64)
        if scores.shape != (len(asked),):
            raise UserError(f"the function returns scores of shape {list(scores.shape)} for {len(asked)} pairs")
        return Scored([""] * len(asked), scores)
