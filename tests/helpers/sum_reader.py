"""A model in closed form for measures: it answers with the sum of the effects of the tokens that stay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perturbation.arrays import Array
from perturbation.measures.base import ExplainedBatch, ScoredBy, TokenScores
from perturbation.removal.reader import SubsetOutputs, Subsets


@dataclass(frozen=True, eq=False)
class SumReader:
    """Implements ``Reader``; its samples are the tokens' effects by modality, [B, n] each.

    Its values are ``worth``, the sum, and its response ``doubled``. ``seen`` has every request.
    """

    seen: list[Subsets] = field(default_factory=list)

    def read(self, samples: dict[str, Array], subsets: Subsets, asked: None) -> SubsetOutputs:
        self.seen.append(subsets)
        worth = np.zeros((len(samples["image"]), subsets.count))
        for modality, kept in (("image", subsets.image), ("text", subsets.text)):
            stays = np.ones((1, 1, 1), dtype=bool) if kept is None else kept
            worth += (samples[modality][:, None] * stays).sum(axis=2)
        said = np.array([[f"{each:.3f}" for each in row] for row in worth], dtype=object)
        return SubsetOutputs(said, {"worth": worth, "doubled": 2 * worth}, "doubled")


def explained(
    scores: dict[str, dict[str, Array]], removable: dict[str, Array] | None = None, start: int = 0
) -> ExplainedBatch:
    """B samples by the scores [B, n] of each modality's explainers; every token is removable unless told."""
    tokens = {}
    for modality, by_name in scores.items():
        first = next(iter(by_name.values()))
        may_go = np.ones(first.shape, dtype=bool) if removable is None else removable[modality]
        tokens[modality] = TokenScores(may_go, {ScoredBy(name): each for name, each in by_name.items()})
    return ExplainedBatch("thing", list(range(start, start + len(first))), "said", tokens, start)  # type: ignore[arg-type]
