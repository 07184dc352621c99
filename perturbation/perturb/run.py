"""The perturbation tests from start to end (docs/method.md, Perturbation tests).

:func:`perturb` draws samples from a split, explains the model's answers or captions with every chosen explainer, and
then runs the model again without some of the tokens. If an explanation is faithful, the model's output changes much
when the highest-scored tokens are removed, and little when the lowest-scored ones are. What is removed and what is
reported is up to the measures (:mod:`perturbation.measures`).

The records of each batch are written as soon as they are computed (``parts/``), so a stopped run can be resumed.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipmapper.config.groups import chosen_configs
from clipmapper.explaining.explainers import build_explainers, lrp_precision, print_lrp_precision, scoring
from clipmapper.files import read_json
from clipmapper.process.together import check_agreed, first_alone
from clipmapper.training.trainer import base_trainer
from perturbation.config import PerturbBaseConfig
from perturbation.perturb.candidates import candidates_of
from perturbation.perturb.identity import identify, open_run
from perturbation.perturb.lightning import PartWriter, RecordingModule
from perturbation.perturb.measures import build_measures, measure_configs
from perturbation.perturb.parts import merge, missing
from perturbation.perturb.results import RESULTS, write_results
from perturbation.perturb.shards import Shard, check_complete, merging, opening
from perturbation.tasks import task_of


def perturb(config: PerturbBaseConfig, choice: str, run: Path) -> dict[str, Any]:
    """Run or resume the perturbation tests, and write ``perturbation.json`` with its tables and figures.

    Args:
        config: The checked config.
        choice: The name of the chosen config of the group ``explainer``.
        run: The run folder.

    Returns:
        The content of ``perturbation.json``; an empty dict in all processes except the first, and for a shard that is
        not the last.

    Raises:
        UserError: The config, the data or the checkpoint do not allow the tests, or the run can't be resumed.
    """
    explainer_configs = explainers_of(config, choice)
    explainers = scoring(build_explainers(explainer_configs), config.tested)
    configs_of_measures = measure_configs(config)
    measures = build_measures(configs_of_measures)
    shard = Shard.parse(config.shard)
    shard.mark(run)  # before the logger writes
    # Built before the model is loaded, to report errors early. Explanations need gradients, so no inference mode.
    trainer = base_trainer(config, run, [PartWriter(run)], enable_checkpointing=False, inference_mode=False)
    task = task_of(config).perturb
    tests = task.build_tests(config, candidates_of(explainers, config.random_seeds), measures)
    precision = lrp_precision(tests.explainers, tests.model)
    content = tests.content
    identity = identify(config, explainer_configs, configs_of_measures, content, precision)
    check_agreed(lambda: {"settings": identity["config"], **content})
    with first_alone(), opening(run, shard):
        open_run(run, config.merge or config.resume, identity)
    if trainer.is_global_zero:
        print(tests.name, flush=True)
        print(tests.about, flush=True)
        print_lrp_precision(tests.explainers, tests.model)
    count = len(tests.batches)
    if config.merge is not None:
        check_complete(Path(config.merge), missing(run, count))
    with ExitStack() as stack:
        if trainer.is_global_zero:
            stack.enter_context(shard.claimed(run))
        trainer.predict(RecordingModule(tests, run, stack, shard), return_predictions=False)
    if not trainer.is_global_zero:
        return {}
    if open_parts := missing(run, count) if shard.of > 1 else []:
        print(f"shard {shard} is finished; {len(open_parts)} of {count} parts are not: the last shard merges them")
        return {}
    with merging(run, shard) as merges:
        if not merges:
            print(f"shard {shard} is finished; another one has merged all {count} parts")
            return dict(read_json(run / RESULTS, own=True))
        about = {**identity, **tests.entries}
        return write_results(run, merge(run, count), about, measures, trainer.logger)


def explainers_of(config: PerturbBaseConfig, choice: str) -> dict[str, Any]:
    """Return the config of each explainer and control that is tested, by name."""
    return chosen_configs("explainer", choice, OmegaConf.create(asdict(config)).explainer, config.controls)
