"""The perturbation tests, end to end: samples drawn, parts written, results made of them."""

from __future__ import annotations

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipmapper.config.groups import chosen_configs
from clipmapper.explaining.explainers import build_explainers
from clipmapper.training.trainer import base_trainer
from perturbation.config import PerturbBaseConfig
from perturbation.perturb.candidates import candidates_of
from perturbation.perturb.identity import identify, open_run
from perturbation.perturb.lightning import PartWriter, RecordingModule
from perturbation.perturb.measures import build_measures, measure_configs
from perturbation.perturb.parts import merge
from perturbation.perturb.results import write_results
from perturbation.tasks import PERTURB_TASKS

# What Lightning warns of and does not matter here: batches are known by their numbers, and made in the process.
IGNORED_WARNINGS = (
    ".*Couldn't infer the batch indices.*",
    ".*does not have many workers.*",
    ".*across ranks is zero.*",
)


def perturb(config: PerturbBaseConfig, choice: str, run: Path) -> dict[str, Any]:
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
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    of_explainers = chosen_configs("explainer", choice, OmegaConf.create(asdict(config)).explainer, config.controls)
    explainers = build_explainers(of_explainers)
    of_measures = measure_configs(config)
    measures = build_measures(of_measures)
    # Early, for its errors; traces need gradients.
    trainer = base_trainer(config, run, [PartWriter(run)], enable_checkpointing=False, inference_mode=False)
    task = PERTURB_TASKS[config.task.name].perturb
    tests = task.build_tests(config, candidates_of(explainers, config.random_seeds), measures)
    identity = identify(config, of_explainers, of_measures, tests.checkpoint, tests.samples)
    open_run(run, config.resume, identity)
    if trainer.is_global_zero:
        print(f"checkpoint: {tests.checkpoint}\n{tests.about}; explainers: {', '.join(explainers)}", flush=True)
    trainer.predict(RecordingModule(tests, run), return_predictions=False)
    if not trainer.is_global_zero:
        return {}
    return write_results(run, merge(run, len(tests.batches)), identity, measures, trainer.logger)
