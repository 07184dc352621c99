"""The explainers under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from explain import Explainer
from perturbation.measures.base import ScoredBy


@dataclass(frozen=True)
class Candidate:
    """An explainer under test, and the name under which its scores are recorded."""

    name: ScoredBy
    explainer: Explainer


def candidates_of(explainers: Mapping[str, Explainer], random_seeds: int) -> list[Candidate]:
    """Return one candidate per explainer, and ``random_seeds`` candidates for an explainer that draws at random."""
    candidates = []
    for name, explainer in explainers.items():
        if explainer.seeded:
            seeds = range(explainer.seed, explainer.seed + random_seeds)
            candidates += [
                Candidate(ScoredBy(name, seed, explainer.control), explainer.with_seed(seed)) for seed in seeds
            ]
        else:
            candidates.append(Candidate(ScoredBy(name, control=explainer.control), explainer))
    return candidates
