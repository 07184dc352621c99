"""Typed configs: a composed config as dataclasses, whose values are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper.config.checks import key_problem, unknown_key
from clipmapper.config.data import DATA_SCHEMAS
from clipmapper.config.schema import MODEL_SCHEMAS, Config
from clipmapper.config.values import check_values, shown
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS

Member = TypeVar("Member")


def typed(config: DictConfig, schema: type[Any] = Config) -> Any:
    """Convert a composed config to an instance of the dataclass ``schema``, with its sections as dataclasses.

    The sections ``task``, ``data`` and ``model`` get the schema that their ``name`` selects.

    Raises:
        UserError: A key is unknown, has no value or has a wrong type; the message names the key.
    """
    sections = [f.name for f in fields(schema)]
    unknown = [str(key) for key in config if key not in sections]
    if unknown:
        experiment = HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
        also = f"; experiment={experiment} may be for another command" if experiment else ""
        raise UserError(unknown_key(unknown[0], sections) + also)
    shaped = OmegaConf.structured(schema)
    task_schemas = {name: task.schema for name, task in TASKS.items()}
    for section, schemas in (("task", task_schemas), ("data", DATA_SCHEMAS), ("model", MODEL_SCHEMAS)):
        if section in sections:
            shaped[section] = OmegaConf.structured(named(config, section, schemas))
    try:
        chosen: dict[str, Any] = {
            key: OmegaConf.get_type(shaped[key]) for key in ("task", "data", "model") if key in sections
        }
        for resolve in (False, True):  # a value that is taken from another key is reported with that key
            values: Any = OmegaConf.to_container(config, resolve=resolve)
            check_values(schema, values, chosen)
        merged = OmegaConf.merge(shaped, config)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"config key {missing[0]} has no value: give {missing[0]}=…")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error


def named(config: DictConfig, section: str, members: Mapping[str, Member]) -> Member:
    """Return the member of ``members`` selected by the key ``name`` of a config section.

    Raises:
        UserError: There is no member with this name.
    """
    name = OmegaConf.select(config, f"{section}.name")
    if name not in members:
        raise UserError(f"{section}.name={shown(name)} is not one of: {', '.join(members)}")
    return members[name]
