"""The explainers under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clipmapper.explaining.partners import Partners
from explain import Explainer
from perturbation.measures.base import ScoredBy


@dataclass(frozen=True)
class Candidate:
    """An explainer under test, and the name under which its scores are recorded."""

    name: ScoredBy
    explainer: Explainer
    partners: Mapping[int, int] = field(default_factory=dict)  #: partner of each sample, if it uses the weights of one


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


def names_of(candidates: Sequence[Candidate]) -> str:
    """Return the names of the explainers, each once, as text."""
    return ", ".join(dict.fromkeys(each.name.name for each in candidates))


def bind(candidates: Sequence[Candidate], partners: Partners, items: Sequence[int]) -> list[Candidate]:
    """Return the candidates with the weights of other samples, where they use such.

    Args:
        candidates: The explainers under test.
        partners: The run's partners.
        items: Sample id of each item of the batch's trace.

    Raises:
        UserError: No sample of another image can be explained.
    """
    bound, of_samples = partners.bind({str(each.name): each.explainer for each in candidates}, items)
    return [
        replace(each, explainer=bound[str(each.name)], partners=of_samples if each.explainer.partners == 1 else {})
        for each in candidates
    ]
