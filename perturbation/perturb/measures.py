"""The measures that a config names: from this project, or custom ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from clipmapper.config.groups import NAMES, named_configs
from clipmapper.config.options import check_options
from clipmapper.errors import UserError
from perturbation.config import PerturbBaseConfig
from perturbation.measures.base import Measure

GROUP = "measure"
ALWAYS = "areas"


def measure_configs(config: PerturbBaseConfig) -> dict[str, dict[str, Any]]:
    """Return the config of each measure in ``measure.names``, by name; ``areas`` is always included.

    Values that refer to the run's config, such as ``${steps}``, are filled in.

    Raises:
        UserError: A name has no file in the group ``measure``, or options are given for a measure that does not run.
    """
    options = dict(config.measure)
    names = list(dict.fromkeys([ALWAYS, *options.pop(NAMES, [])]))
    if idle := [name for name in options if name not in names]:
        raise UserError(
            f"{GROUP}.{idle[0]}: {idle[0]} does not run; add it to {GROUP}.names, "
            f"or give options only for {', '.join(names)}"
        )
    return named_configs(GROUP, names, options, OmegaConf.create({**asdict(config), "about": config.about}))


def build_measures(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """Build the measures of these configs.

    Raises:
        UserError: A config does not describe a measure, or a measure refuses an option.
    """
    return {name: _build_measure(name, config) for name, config in configs.items()}


def _build_measure(name: str, config: Mapping[str, Any]) -> Measure:
    check_options(f"{GROUP}.{name}.", config)
    try:
        measure = instantiate(dict(config), _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{GROUP}={name}: {' '.join(str(error.__cause__ or error).split())}") from error
    if not isinstance(measure, Measure):
        found = type(measure).__name__
        raise UserError(f"{GROUP}={name}: {found} is no subclass of perturbation.measures.base.Measure")
    return measure
