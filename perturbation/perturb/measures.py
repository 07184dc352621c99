"""The measures that a config names, ours or a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clipmapper.cli import PROJECT
from clipmapper.errors import UserError
from perturbation.config import PerturbBaseConfig
from perturbation.measures.base import Measure

GROUP = "measure"
ALWAYS = "areas"


def measure_configs(config: PerturbBaseConfig) -> dict[str, dict[str, Any]]:
    """The config of each measure of ``measure.names``, by name, with what it takes over from the run's config.

    ``areas`` is always there. ``measure.NAME.OPTION`` stands before what the measure's file says.

    Raises:
        UserError: an unknown name.
    """
    options = dict(config.measure)
    names = options.pop("names", [])
    found = named_configs(GROUP, list(dict.fromkeys([ALWAYS, *names])), options)
    whole = OmegaConf.create({**asdict(config), GROUP: found})
    configs: dict[str, dict[str, Any]] = OmegaConf.to_container(whole[GROUP], resolve=True)  # type: ignore[assignment]
    return configs


def build_measures(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """The measures of these configs.

    Raises:
        UserError: a config that is no measure's, or an option that the measure refuses.
    """
    return {name: _built(name, config) for name, config in configs.items()}


def named_configs(group: str, names: Sequence[str], overrides: Mapping[str, Any]) -> dict[str, DictConfig]:
    """Configs of a group by name, as Hydra's search path has them, so also those of ``--config-dir``.

    Interpolations are left as they are: they may reach into the config that these will be part of.

    Args:
        group: the config group.
        names: which of its configs.
        overrides: by name, the keys that stand before those of the file.

    Raises:
        UserError: a name that the group does not have.
    """
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        available = loader.get_group_options(group, ObjectType.CONFIG)
        for name in [*names, *overrides]:
            if name not in available:
                raise UserError(f"{group}.names: {name} is none of: {', '.join(available)}")
        found = {name: compose(f"{group}/{name}")[group] for name in names}
    for config in found.values():
        OmegaConf.set_struct(config, False)
    return {name: OmegaConf.merge(config, overrides.get(name, {})) for name, config in found.items()}  # type: ignore[misc]


@contextmanager
def _hydra() -> Iterator[None]:
    """The command's own Hydra, or where no command runs, one that knows our configs."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(PROJECT / "configs"), version_base=None):
            yield


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
