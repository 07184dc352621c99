"""The perturbation tests, end to end: samples drawn, parts written, results made of them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.errors import UserError
from clipmapper.training.loggers import build_logger
from perturbation.config import PerturbBaseConfig
from perturbation.perturb.candidates import candidates_of, chosen_explainers
from perturbation.perturb.identity import explainer_configs, identify, open_run
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
    configs = measure_configs(config)
    measures = build_measures(configs)
    explainers = chosen_explainers(config, choice)
    trainer = _trainer(config, run)  # early, for its errors
    tests = PERTURB_TASKS[config.task.name].build(config, candidates_of(explainers, config.random_seeds), measures)
    described = explainer_configs(choice, config.explainer, list(explainers))
    identity = identify(config, described, configs, tests.checkpoint, tests.samples)
    open_run(run, config.resume, identity)
    if trainer.is_global_zero:
        print(f"checkpoint: {tests.checkpoint}\n{tests.about}; explainers: {', '.join(explainers)}", flush=True)
    trainer.predict(RecordingModule(tests, run), return_predictions=False)
    if not trainer.is_global_zero:
        return {}
    return write_results(run, merge(run, len(tests.batches)), identity, measures, trainer.logger)


def _trainer(config: PerturbBaseConfig, run: Path) -> pl.Trainer:
    """The trainer that predicts records; raises ``UserError`` for what Lightning refuses."""
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
