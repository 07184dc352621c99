"""The explainers under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import OmegaConf

from clipmapper.explaining.explainers import choose_explainers
from explain import Explainer
from explain.explainers import Random
from perturbation.config import PerturbBaseConfig
from perturbation.measures.base import ScoredBy


@dataclass(frozen=True)
class Candidate:
    """An explainer under test, and by what its scores are known."""

    name: ScoredBy
    explainer: Explainer


def chosen_explainers(config: PerturbBaseConfig, choice: str) -> dict[str, Explainer]:
    """Those that the config names, then the controls."""
    chosen = choose_explainers(OmegaConf.create(config.explainer), choice)
    controls = choose_explainers(OmegaConf.create({"names": config.controls}), "controls") if config.controls else {}
    return {**chosen, **{name: each for name, each in controls.items() if name not in chosen}}


def candidates_of(explainers: Mapping[str, Explainer], random_seeds: int) -> list[Candidate]:
    """Every explainer once, random orders once for every seed."""
    candidates = []
    for name, explainer in explainers.items():
        if isinstance(explainer, Random):
            seeds = range(explainer.seed, explainer.seed + random_seeds)
            candidates += [Candidate(ScoredBy(name, seed), Random(seed)) for seed in seeds]
        else:
            candidates.append(Candidate(ScoredBy(name), explainer))
    return candidates
