"""The perturbation tests, end to end: samples drawn, parts written, results made of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipmapper.config.groups import chosen_configs
from clipmapper.explaining.explainers import build_explainers
from clipmapper.training.trainer import base_trainer
from explain import Explainer
from perturbation.config import PerturbCaptionsConfig, PerturbConfig, TestsConfig
from perturbation.perturb.caption import caption_tests
from perturbation.perturb.identity import identify, open_run
from perturbation.perturb.lightning import PartWriter, PerturbationTests, Tests
from perturbation.perturb.parts import merge
from perturbation.perturb.records import Entrant
from perturbation.perturb.results import write_results
from perturbation.perturb.vqa import question_tests
from perturbation.removal.steps import parse_steps

# What Lightning warns of and does not matter here: batches are known by their numbers, and made in the process.
_NOT_NEWS = (".*Couldn't infer the batch indices.*", ".*does not have many workers.*", ".*across ranks is zero.*")


def perturb(config: TestsConfig, choice: str, run: Path) -> dict[str, Any]:
    """Runs the tests, or goes on with them, and writes ``perturbation.json`` and all that belongs to it.

    Args:
        config: The checked config.
        choice: Which config of the group ``explainer`` was chosen.
        run: The run folder.

    Returns:
        The content of ``perturbation.json``; nothing in processes other than the first.

    Raises:
        UserError: what the user can mend.
    """
    for message in _NOT_NEWS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    steps = parse_steps(config.steps)
    configs = chosen_configs("explainer", choice, OmegaConf.create(asdict(config)).explainer, config.controls)
    explainers = build_explainers(configs)
    # Early, for its errors; traces need gradients.
    trainer = base_trainer(config, run, [PartWriter(run)], enable_checkpointing=False, inference_mode=False)
    tests = _tests(config, _entrants(explainers, config.random_seeds), steps)
    identity = identify(config, configs, tests.checkpoint, tests.samples)
    open_run(run, config.resume, identity)
    if trainer.is_global_zero:
        print(f"checkpoint: {tests.checkpoint}\n{tests.about}; explainers: {', '.join(explainers)}", flush=True)
    trainer.predict(PerturbationTests(tests, run), return_predictions=False)
    if not trainer.is_global_zero:
        return {}
    return write_results(run, merge(run, len(tests.batches)), identity, config, steps, trainer.logger)


def _tests(config: TestsConfig, entrants: Sequence[Entrant], steps: Sequence[float]) -> Tests:
    if isinstance(config, PerturbCaptionsConfig):
        return caption_tests(config, entrants, steps)
    assert isinstance(config, PerturbConfig)
    return question_tests(config, entrants, steps)


def _entrants(explainers: Mapping[str, Explainer], random_seeds: int) -> list[Entrant]:
    """The explainers, random orders once for every seed."""
    entrants = []
    for name, explainer in explainers.items():
        if explainer.seeded:
            seeds = range(explainer.seed, explainer.seed + random_seeds)
            entrants += [Entrant(name, seed, explainer.with_seed(seed)) for seed in seeds]
        else:
            entrants.append(Entrant(name, 0, explainer))
    return entrants
