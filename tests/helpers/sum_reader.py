"""A model with a closed form for tests of measures: its output is the sum of the effects of the kept tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perturbation.arrays import Array
from perturbation.measures.base import ExplainedBatch, ScoredBy, TokenScores
from perturbation.removal.reader import SubsetOutputs, Subsets


@dataclass(frozen=True, eq=False)
class SumReader:
    """The reader of this model; implements ``Reader``.

    Its samples are the effects of the tokens by modality, [B, n] each. Its values are ``worth``, the sum, and
    ``doubled``, twice the sum, which is the response. Every request is added to ``seen``.
    """

    seen: list[Subsets] = field(default_factory=list)

    def read(self, samples: dict[str, Array], subsets: Subsets, asked: None) -> SubsetOutputs:
        self.seen.append(subsets)
        worth = np.zeros((len(samples["image"]), subsets.count))
        for modality, kept in (("image", subsets.image), ("text", subsets.text)):
            mask = np.ones((1, 1, 1), dtype=bool) if kept is None else kept
            worth += (samples[modality][:, None] * mask).sum(axis=2)
        said = np.array([[f"{each:.3f}" for each in row] for row in worth], dtype=object)
        return SubsetOutputs(said, {"worth": worth, "doubled": 2 * worth}, "doubled")


def explained(
    scores: dict[str, dict[str, Array]], removable: dict[str, Array] | None = None, start: int = 0
) -> ExplainedBatch:
    """Return a batch of B samples.

    Args:
        scores: [B, n] by modality and explainer.
        removable: bool [B, n] by modality; every token is removable by default.
        start: Number of samples in the batches before this one.
    """
    tokens = {}
    for modality, by_name in scores.items():
        first = next(iter(by_name.values()))
        mask = np.ones(first.shape, dtype=bool) if removable is None else removable[modality]
        tokens[modality] = TokenScores(mask, {ScoredBy(name): each for name, each in by_name.items()})
    return ExplainedBatch("thing", list(range(start, start + len(first))), "said", tokens, start)  # type: ignore[arg-type]
