"""Every key of every command's config with bad values: each is refused in one line that names the key, or is legal.

The keys are found by composing the configs, so a new key is covered by itself. A number that is not declared with its
bounds, and a text that is not declared as a choice, a path or a text, fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_runs import composed

from clipmapper.arguments import AS_TYPED, LISTS_AS_TYPED
from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.cli import typed
from clipmapper.commands.export import ExportConfig
from clipmapper.commands.fetch import FetchConfig, FetchModelConfig
from clipmapper.config.data import DATA_SCHEMAS
from clipmapper.config.explain import ModelPictureConfig
from clipmapper.config.fields import ITEMS, RULE
from clipmapper.config.schema import MODEL_SCHEMAS, EvaluateConfig, TrainConfig
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.errors import UserError
from clipmapper.features.config import CacheConfig
from clipmapper.llava.config import TrainLlavaConfig
from clipmapper.places import CONFIGS
from clipmapper.tasks import TASKS
from perturbation.config import (
    DemoConfig,
    LocaliseConfig,
    LocaliseModelConfig,
    PerturbCaptionsConfig,
    PerturbConfig,
    PerturbModelConfig,
    PoolConfig,
    ReportConfig,
    ReproduceConfig,
    SanityConfig,
    SanityModelConfig,
)

CAPTION, FOLDER = ("task=caption",), ("model=huggingface", "model.path=folder")
OPEN_CLIP = ("model=open_clip", "data=table", "data.file=table.csv")
#: Every command, with the choices that give it another schema.
VARIANTS: list[tuple[str, tuple[str, ...], type[Any]]] = [
    *(
        ("train", (f"data={name}", *(["data.file=x.csv"] if name == "table" else [])), TrainConfig)
        for name in DATA_SCHEMAS
    ),
    ("train", CAPTION, TrainConfig),
    ("evaluate", (), EvaluateConfig),
    *(("explain", (f"task={name}",), task.explain_schema) for name, task in TASKS.items()),
    ("explain", FOLDER, ModelPictureConfig),
    ("perturb", (), PerturbConfig),
    ("perturb", CAPTION, PerturbCaptionsConfig),
    ("perturb", OPEN_CLIP, PerturbModelConfig),
    ("evaluate_explanations", (), LocaliseConfig),
    ("evaluate_explanations", FOLDER, LocaliseModelConfig),
    ("sanity_check", (), SanityConfig),
    ("sanity_check", FOLDER, SanityModelConfig),
    ("pool_seeds", ("runs=[a,b]",), PoolConfig),
    ("report", (), ReportConfig),
    ("reproduce", (), ReproduceConfig),
    ("benchmark", (), BenchmarkConfig),
    ("export", (), ExportConfig),
    ("pretrain_clip", (), PretrainConfig),
    ("train_llava", (), TrainLlavaConfig),
    ("cache", (), CacheConfig),
    ("fetch", (), FetchConfig),
    ("fetch", FOLDER, FetchModelConfig),
    ("demo", (), DemoConfig),
]
BAD: list[Any] = [
    *(math.nan, math.inf, None, 0, -3, 1e308, 10**30, 1.5, "nonsense", True, [1, 2], {"a": 1}, ""),
]
CLASSES = re.compile(r"\b(int|float|str|None|NoneType|Integer|Float|\w+Config|\w+Node)\b|List\[|Dict\[")

# Legal values, written down apart from the declarations.
ZERO = {
    *("seed", "data.seed", "data.reserved", "data.workers", "data.extra_captions", "mapper.dropout"),
    *("task.optim.lr", "task.optim.weight_decay", "task.optim.warmup_steps", "task.optim.decay_start"),
    *("task.label_smoothing", "trainer.gradient_clip_val", "trainer.patience", "ceiling.samples"),
    "trainer.num_workers",
    *("lr", "caption_weight", "patch_weight", "prompt_weight", "unused_days", "port"),
}
ZERO_IN_RUNS = {"report.samples", "reproduce.samples"}
HUGE = {"trainer.gradient_clip_val"}
BROKEN = {  # numbers that may have a fraction: 1.5
    *("task.optim.lr", "task.optim.weight_decay", "trainer.gradient_clip_val", "lr"),
    "trainer.checkpoint_every_minutes",
    *("caption_weight", "patch_weight", "prompt_weight"),
}
LISTS: dict[str, list[Any]] = {"trainer.devices": [[1, 2]], "ids": [[1, 2]], "data.extra_questions": [{"a": 1}]}
FREE = ("explainer", "measure", "stages")  # checked where they are read, not by a schema


class Key(NamedTuple):
    variant: tuple[str, tuple[str, ...], type[Any]]
    name: str
    kind: Any
    optional: bool
    declared: Field[Any]


def keys() -> Iterator[Key]:
    """Yield every key of every config once for each field of a schema."""
    seen = set()
    for variant in VARIANTS:
        name, overrides, schema = variant
        config = composed(name, *overrides)
        chosen = {
            "task": lambda config=config: TASKS[config.task.name].schema,
            "data": lambda config=config: DATA_SCHEMAS[config.data.name],
            "model": lambda config=config: MODEL_SCHEMAS[config.model.name],
        }
        sections = {key: found() for key, found in chosen.items() if key in config}
        for key in _keys_of(variant, schema, config, sections):
            origin = (key.declared.metadata.get(RULE), key.declared.metadata.get(ITEMS), key.kind, key.name)
            if str(origin) not in seen or key.name == "samples":
                seen.add(str(origin))
                yield key


def _keys_of(
    variant: tuple[str, tuple[str, ...], type[Any]],
    schema: type[Any],
    config: DictConfig,
    sections: dict[str, type[Any]],
    prefix: str = "",
) -> Iterator[Key]:
    hints = get_type_hints(schema)
    for declared in fields(schema):
        name, kind = f"{prefix}{declared.name}", hints[declared.name]
        kind = kind if prefix else sections.get(declared.name, kind)
        if declared.name in FREE or declared.name not in config:
            continue
        if is_dataclass(kind):
            yield from _keys_of(variant, kind, config[declared.name], sections, f"{name}.")
            continue
        optional = get_origin(kind) is UnionType
        if optional:
            [kind] = [each for each in get_args(kind) if each is not type(None)]
        yield Key(variant, name, kind, optional, declared)


KEYS = list(keys())


def legal(key: Key, value: Any) -> bool:
    """Return whether a key takes one of the bad values."""
    command = f"{key.variant[0]}.{key.name}"
    if value is None:
        return key.optional or key.name == "trainer.limit_val_batches"
    if key.kind is bool:
        return value is True or (not isinstance(value, float | str | list | dict) and value == 0)
    if key.kind in (int, float):
        numbers = {1.5: BROKEN, 1e308: HUGE, 10**30: HUGE, 0: ZERO}
        known = isinstance(value, int | float) and not isinstance(value, bool) and value in numbers
        return (known and key.name in numbers[value]) or (value == 0 and type(value) is int and command in ZERO_IN_RUNS)
    if key.kind is str:
        rule = key.declared.metadata[RULE]
        if hasattr(rule, "names") or isinstance(value, list | dict):
            return False
        return value != "" or rule.__qualname__.startswith("text.")
    return value in LISTS.get(key.name, []) or (value == [1, 2] and key.kind == list[str] and _free_items(key))


def _is_free(key: Key) -> bool:
    """Return whether the key takes any text."""
    return key.kind is str and not hasattr(key.declared.metadata[RULE], "names")


def _free_items(key: Key) -> bool:
    return not hasattr(key.declared.metadata[ITEMS].rule, "names")


def test_every_command_is_in_the_table() -> None:
    assert {name for name, _, _ in VARIANTS} == {path.stem for path in CONFIGS.glob("*.yaml")}
    assert len(KEYS) > 100


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.variant[0]}-{key.name}")
def test_bad_values_are_refused_with_the_name_of_the_key(key: Key) -> None:
    name, overrides, schema = key.variant
    plain = OmegaConf.to_container(composed(name, *overrides))
    *sections, last = key.name.split(".")
    place: Any = plain
    for section in sections:
        place = place[section]
    for value in [None, "", 1.5, [1, 2], {"a": 1}] if _is_free(key) else BAD:
        place[last] = value
        try:
            typed(OmegaConf.create(plain), schema)
        except UserError as error:
            line = str(error)
            assert key.name in line, (value, line)
            assert "\n" not in line
            assert not CLASSES.search(line), line
        else:
            assert legal(key, value), value


@cache
def _declarations() -> list[tuple[str, Any, Field[Any]]]:
    schemas: list[type[Any]] = [*(variant[2] for variant in VARIANTS), *DATA_SCHEMAS.values(), *MODEL_SCHEMAS.values()]
    schemas += [task.schema for task in TASKS.values()]
    found = []
    while schemas:
        schema = schemas.pop()
        hints = get_type_hints(schema)
        for declared in fields(schema):
            kind = hints[declared.name]
            if is_dataclass(kind) and isinstance(kind, type):
                schemas.append(kind)
            found.append((f"{schema.__name__}.{declared.name}", kind, declared))
    return found


def test_every_number_and_every_text_is_declared() -> None:
    for name, kind, declared in _declarations():
        kinds = {kind, *get_args(kind)}
        if get_origin(kind) in (list, dict) or any(get_origin(each) is list for each in kinds):
            assert ITEMS in declared.metadata or Any in get_args(kind), name
        elif kinds & {int, float, str}:
            assert RULE in declared.metadata, name


def test_paths_and_lists_of_paths_are_taken_as_typed() -> None:
    """The keys of paths that arguments.py lists are those that are declared as paths."""
    rules = {key.name: getattr(key.declared.metadata.get(RULE), "__qualname__", "") for key in KEYS}
    paths = {name for name, rule in rules.items() if rule.startswith("path.")}
    assert len(paths) > 10
    assert paths <= AS_TYPED
    assert {key for key in AS_TYPED if not key.startswith("hydra.")} <= {*rules, "data.file"}
    assert rules.keys() >= LISTS_AS_TYPED
