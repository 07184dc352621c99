"""The perturbation tests, end to end: questions drawn, parts written, results made of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.explaining import choose_explainers
from clipmapper.loggers import build_logger
from clipmapper.subject import Subject, load_subject
from explain import Explainer
from explain.explainers import Random
from perturbation.config import PerturbConfig
from perturbation.identity import explainer_configs, identify, open_run
from perturbation.module import PartWriter, PerturbationTests
from perturbation.parts import merge
from perturbation.records import Entrant
from perturbation.results import write_results
from perturbation.steps import parse_steps

# What Lightning warns of and does not matter here: batches are known by their numbers, and made in the process.
_NOT_NEWS = (".*Couldn't infer the batch indices.*", ".*does not have many workers.*", ".*across ranks is zero.*")


def perturb(config: PerturbConfig, choice: str, run: Path) -> dict[str, Any]:
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
    subject = load_subject(config, _split(config), config.checkpoint)
    rows = draw(len(subject.questions), config.samples, config.seed)
    questions = [subject.questions[row] for row in rows]
    _check_answered(questions, _split(config))
    configs = explainer_configs(choice, config.explainer, list(explainers))
    identity = identify(config, configs, subject.checkpoint, questions)
    open_run(run, config.resume, identity)
    if trainer.is_global_zero:
        _describe(subject, questions, explainers)
    batches = deal(rows, config.batch_samples)
    module = PerturbationTests(subject, batches, _entrants(explainers, config.random_seeds), config, steps, run)
    trainer.predict(module, return_predictions=False)
    if not trainer.is_global_zero:
        return {}
    return write_results(run, merge(run, len(batches)), identity, config, steps, trainer.logger)


def draw(questions: int, samples: int | None, seed: int) -> list[int]:
    """Rows of the questions drawn without replacement, in rising order; all of them where ``samples`` is None.

    Raises ``UserError`` where there are fewer questions than samples.
    """
    if samples is None:
        return list(range(questions))
    if samples > questions:
        raise UserError(f"samples={samples}: the split has {questions} questions; give samples={questions} or null")
    return sorted(np.random.default_rng(seed).permutation(questions)[:samples].tolist())


def deal(rows: Sequence[int], size: int) -> list[list[int]]:
    """Batches of at most ``size`` rows, of sizes that differ by at most one.

    So no batch is of one sample, which some explainers refuse, unless there is one sample in all or ``size`` is
    below 3.
    """
    return [part.tolist() for part in np.array_split(np.asarray(rows), -(-len(rows) // size))]


def _split(config: PerturbConfig) -> str:
    """``test``, or ``val`` for data whose test split is not named (others always have one)."""
    without_test = getattr(config.data, "test_split", "test") is None
    return "val" if config.split == "test" and without_test else config.split


def _explainers(config: PerturbConfig, choice: str) -> dict[str, Explainer]:
    chosen = choose_explainers(OmegaConf.create(config.explainer), choice)
    controls = choose_explainers(OmegaConf.create({"names": config.controls}), "controls") if config.controls else {}
    return {**chosen, **{name: each for name, each in controls.items() if name not in chosen}}


def _entrants(explainers: Mapping[str, Explainer], random_seeds: int) -> list[Entrant]:
    """The explainers, random orders once for every seed."""
    entrants = []
    for name, explainer in explainers.items():
        if isinstance(explainer, Random):
            seeds = range(explainer.seed, explainer.seed + random_seeds)
            entrants += [Entrant(name, seed, Random(seed)) for seed in seeds]
        else:
            entrants.append(Entrant(name, 0, explainer))
    return entrants


def _trainer(config: PerturbConfig, run: Path) -> pl.Trainer:
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


def _check_answered(questions: Sequence[Question], split: str) -> None:
    without = [question.question_id for question in questions if not question.answers]
    if without:
        raise UserError(
            f"split={split}: question {without[0]} has no human answers to be judged by; choose a split that has them"
        )


def _describe(subject: Subject, questions: Sequence[Question], explainers: Mapping[str, Explainer]) -> None:
    print(f"checkpoint: {subject.checkpoint}")
    print(f"{len(questions)} of {len(subject.questions)} questions; explainers: {', '.join(explainers)}", flush=True)
