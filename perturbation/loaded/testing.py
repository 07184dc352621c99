"""The tests of a loaded model's explanations: those of ``scripts/perturb.py``, without a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper.cli import typed
from clipmapper.config.checks import key_problem
from clipmapper.config.groups import composed, named_configs
from clipmapper.console import progress
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import build_explainers, scoring
from clipmapper.files import versions
from explain import Explainer
from explain.sample.chosen import by_name
from perturbation.config import PerturbBaseConfig
from perturbation.loaded.samples import as_given, given_samples, test_samples, tests_of
from perturbation.measures.base import SAMPLES
from perturbation.pairs.result import Tested, tested
from perturbation.perturb.candidates import candidates_of
from perturbation.perturb.lightning import ExplanationTests
from perturbation.perturb.measures import build_measures, measure_configs
from perturbation.perturb.parts import Tables
from perturbation.perturb.samples import sample_rows
from perturbation.tasks import task_in

if TYPE_CHECKING:
    from perturbation.loaded.model import Given, Loaded

ENGINE_BATCH = 64  # fixed, so that results do not depend on the speed of the machine
_SECTIONS = ("task", "data", "mapper", "encoder")  # of a training's config, which its tests use again


def drawn(model: Loaded, options: Mapping[str, Any]) -> list[Given]:
    """Return the drawn samples of the test data; the arguments and errors are those of ``Loaded.samples``."""
    config = _config(model, options)
    samples = test_samples(model, config)
    rows = sample_rows(len(samples), config.samples, config.seed, "samples")
    return [as_given(samples[row]) for row in rows]


def tested_model(
    model: Loaded, samples: int | Iterable[Sequence[Any]] | None, explainers: Any, options: Mapping[str, Any]
) -> Tested:
    """Test explanations of a model; the arguments and errors are those of ``Loaded.test``."""
    drawn = samples is None or isinstance(samples, int)
    config = _config(model, {**options, "samples": samples if drawn else None})
    measures = build_measures(measure_configs(config))
    chosen = scoring(_explainers(explainers, config), config.tested)
    candidates = candidates_of(chosen, config.random_seeds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # some models draw at random, such as the order of ViLT's patches
        known = test_samples(model, config) if drawn else given_samples(model, samples)  # type: ignore[arg-type]
        tests = tests_of(model, known, config, candidates, measures)
        records = _recorded(tests)
    about = {"model": model.name, "removal": asdict(config.removal), "seed": config.seed, "versions": versions()}  # type: ignore[attr-defined]
    return tested(records, measures, {**about, **tests.entries})


def _config(model: Loaded, options: Mapping[str, Any]) -> PerturbBaseConfig:
    """Return the config of ``scripts/perturb.py`` for a model, with further keys.

    Raises:
        UserError: A key is unknown, or a value is refused.
    """
    stored = {name: dict(model.config[name]) for name in _SECTIONS if isinstance(model.config.get(name), Mapping)}
    if model.processor is None:
        choices = [f"{name}={stored[name]['name']}" for name in ("task", "mapper", "data")]
        named: dict[str, Any] = {"checkpoint": model.path, "engine_batch": ENGINE_BATCH}
        named |= {"weightings": ["equal"]} if model.task == "caption" else {}
    else:
        choices = ["model=huggingface", f"data={stored.get('data', {'name': 'shapes'})['name']}"]
        named = {"model": {"path": model.path}}
    if not Path(str(stored.get("data", {}).get("root", ""))).is_dir():
        stored.get("data", {}).pop("root", None)  # the run was made on another machine, or its data were moved
    base = composed("perturb", choices)
    OmegaConf.set_struct(base, False)
    try:
        config = OmegaConf.merge(base, stored, named, dict(options))
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error
    checked: PerturbBaseConfig = typed(config, task_in(config).perturb_schema)  # type: ignore[arg-type]
    return checked


def _explainers(chosen: Any, config: PerturbBaseConfig) -> dict[str, Explainer]:
    """Return the explainers and controls by name.

    Raises:
        UserError: A name is unknown, or what is given is refused by :func:`explain.sample.chosen.by_name`.
    """
    try:
        given = by_name(chosen)
    except ValueError as error:
        raise UserError(str(error)) from error
    files = [each for each in given.values() if isinstance(each, str)]
    built = build_explainers(named_configs("explainer", list(dict.fromkeys([*files, *config.controls])), {}))
    own = {name: built[each] if isinstance(each, str) else each for name, each in given.items()}
    return {**own, **{name: built[name] for name in config.controls if name not in own}}


def _recorded(tests: ExplanationTests[Any]) -> dict[str, pa.Table]:
    """Return the records of all batches by table.

    Raises:
        UserError: No image is readable.
    """
    tables: Tables = {}
    with TemporaryDirectory() as folder:
        prepared = tests.prepare(Path(folder))
    with progress(sum(map(len, tests.batches)), "removing tokens", tests.unit) as advance:
        for number, rows in enumerate(tests.batches):
            for name, found in tests.record(number, prepared).items():
                tables.setdefault(name, []).extend(found)
            advance(len(rows))
    if not tables.get(SAMPLES):
        raise UserError("no image of the chosen samples is readable; check the image folder in data.root")
    return {name: pa.concat_tables(parts).combine_chunks() for name, parts in tables.items()}
