"""The perturbation tests, end to end: samples drawn, parts written, results made of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.errors import UserError
from clipmapper.explaining import choose_explainers
from clipmapper.loggers import build_logger
from explain import Explainer
from perturbation.captions import caption_tests
from perturbation.config import PerturbCaptionsConfig, PerturbConfig, TestsConfig
from perturbation.identity import explainer_configs, identify, open_run
from perturbation.module import PartWriter, PerturbationTests, Tests
from perturbation.parts import merge
from perturbation.questions import question_tests
from perturbation.records import Entrant
from perturbation.results import write_results
from perturbation.steps import parse_steps

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
    explainers = _explainers(config, choice)
    trainer = _trainer(config, run)  # early, for its errors
    tests = _tests(config, _entrants(explainers, config.random_seeds), steps)
    configs = explainer_configs(choice, config.explainer, list(explainers))
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


def _explainers(config: TestsConfig, choice: str) -> dict[str, Explainer]:
    chosen = choose_explainers(OmegaConf.create(config.explainer), choice)
    controls = choose_explainers(OmegaConf.create({"names": config.controls}), "controls") if config.controls else {}
    return {**chosen, **{name: each for name, each in controls.items() if name not in chosen}}


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


def _trainer(config: TestsConfig, run: Path) -> pl.Trainer:
    t = config.trainer
    try:
        return pl.Trainer(
            accelerator=t.accelerator,
            devices=t.devices,
            strategy=t.strategy,
            precision=t.precision,  # type: ignore[arg-type]
            enable_progress_bar=t.enable_progress_bar,
            enable_model_summary=False,
            enable_checkpointing=False,
            inference_mode=False,  # traces need gradients
            use_distributed_sampler=False,
            logger=build_logger(config.logger, run),
            callbacks=[PartWriter(run)],
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}; correct the key in trainer") from error
