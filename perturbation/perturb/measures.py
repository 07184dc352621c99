"""The measures that a config names, ours or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from clipmapper.config.groups import NAMES, named_configs
from clipmapper.errors import UserError
from perturbation.config import PerturbBaseConfig
from perturbation.measures.base import Measure

GROUP = "measure"
ALWAYS = "areas"


def measure_configs(config: PerturbBaseConfig) -> dict[str, dict[str, Any]]:
    """The config of each measure of ``measure.names``, by name, with what it takes over from the run's config.

    ``areas`` is always there.

    Raises:
        UserError: a name that no file of the group has, or options of a measure that does not run.
    """
    options = dict(config.measure)
    names = list(dict.fromkeys([ALWAYS, *options.pop(NAMES, [])]))
    if idle := [name for name in options if name not in names]:
        raise UserError(f"{GROUP}.{idle[0]}: {idle[0]} does not run; options can be given for {', '.join(names)}")
    return named_configs(GROUP, names, options, OmegaConf.create(asdict(config)))


def build_measures(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """The measures of these configs.

    Raises:
        UserError: a config that is no measure's, or an option that the measure refuses.
    """
    return {name: _built(name, config) for name, config in configs.items()}


def _built(name: str, config: Mapping[str, Any]) -> Measure:
    try:
        measure = instantiate(dict(config), _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{GROUP}={name}: {' '.join(str(error.__cause__ or error).split())}") from error
    if not isinstance(measure, Measure):
        raise UserError(f"{GROUP}={name}: {type(measure).__name__} is no perturbation.measures.base.Measure")
    return measure
