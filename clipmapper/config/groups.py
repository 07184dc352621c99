"""Configs of a group's members by name, for commands that run several at once.

Hydra composes one choice of a group. Where several run, each is composed from its own file on Hydra's search path,
which ``--config-dir`` extends, and takes the options that are given below the group by its name:
``explainer.names=[weighted,genatt] explainer.weighted.importance=token``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipmapper.config.checks import key_problem, unknown_key
from clipmapper.errors import UserError
from clipmapper.places import CONFIGS

NAMES = "names"  # the key of a choice that names members instead of being one
TARGET = "_target_"  # the key of a whole config, which needs no file


def chosen_configs(
    group: str, choice: str, config: DictConfig, further: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the config of every member of ``group`` that runs, by name.

    Args:
        group: The config group.
        choice: The file that was chosen.
        config: The composed group: the keys of the chosen file, ``names`` (a list, or ``all``) where several run, and
            options by name.
        further: Members that run besides.

    Raises:
        UserError: a name that no file has, an option that its file lacks, or options of a member that does not run.
    """
    given = _plain(config, resolve=True)
    with _search_path():
        own = _plain(OmegaConf.create(_composed(group, [choice])[choice], parent=config), resolve=True)
        wanted = given.pop(NAMES, [choice])
        names = list(dict.fromkeys([*(_members(group) if wanted == "all" else wanted), *further]))
        if not names:
            raise UserError(f"{group}.{NAMES}: an empty list is none of: {', '.join(_members(group))}")
        if NAMES not in own:
            kept = {key: given.pop(key) for key in list(given) if key in own}
            if choice in names:
                given[choice] = _merged(group, {choice: kept}, {choice: given.get(choice, {})})[choice]
            elif kept != own:
                changed = next(key for key in own if kept.get(key) != own[key])
                raise UserError(f"{group}.{changed}: {choice} does not run, only {', '.join(names)}")
        _check_options(group, given, names)
        return named_configs(group, names, given, config)


def named_configs(
    group: str, names: Sequence[str], options: Mapping[str, Any], parent: DictConfig | None = None
) -> dict[str, dict[str, Any]]:
    """Return the config of each of ``names``: its file's, with its options.

    Args:
        group: The config group.
        names: Files of the group, or names whose options are a whole config, with ``_target_``.
        options: Options by name.
        parent: Where interpolations find the run's other keys.

    Raises:
        UserError: a name that no file has, or an option that its file lacks.
    """
    whole = {name: options[name] for name in names if TARGET in options.get(name, {})}
    filed = [name for name in names if name not in whole]
    with _search_path():
        if unknown := [name for name in filed if name not in _files(group)]:
            raise UserError(f"{group}.{NAMES}: {unknown[0]} is none of: {', '.join(_members(group))}")
        found = whole | _merged(group, _composed(group, filed), {name: options.get(name, {}) for name in filed})
    return {name: _plain(OmegaConf.create(found[name], parent=parent), resolve=True) for name in names}


@contextmanager
def _search_path() -> Iterator[None]:
    """The running command's search path; outside of one, the project's own configs."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            yield


def _files(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group, ObjectType.CONFIG, None, _search_path_overrides())


def _search_path_overrides() -> list[str]:
    """Return ``hydra.searchpath=…`` as it was typed, which Hydra forgets after its own composition."""
    if not HydraConfig.initialized():
        return []
    return [override for override in HydraConfig.get().overrides.hydra if override.startswith("hydra.searchpath=")]


def _members(group: str) -> list[str]:
    """Return all files of a group that are no list of others."""
    return [name for name, config in _composed(group, _files(group)).items() if NAMES not in config]


def _composed(group: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    members = [f"+{group}@{name}={name}" for name in names]
    found = _plain(compose(overrides=members + _search_path_overrides()))
    return {name: found[name] for name in names}


def _merged(group: str, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the options put in; an option that it lacks is refused."""
    shape = OmegaConf.create({group: dict(base)})
    OmegaConf.set_struct(shape, True)
    try:
        merged = OmegaConf.merge(shape, {group: dict(options)})
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error
    found: dict[str, Any] = _plain(merged)[group]
    return found


def _check_options(group: str, options: Mapping[str, Any], names: Sequence[str]) -> None:
    for key, value in options.items():
        if key in names and isinstance(value, Mapping):
            continue
        if isinstance(value, Mapping):
            raise UserError(f"{group}.{key}: {key} does not run; options can be given for {', '.join(names)}")
        raise UserError(unknown_key(f"{group}.{key}", [f"{group}.{name}" for name in (NAMES, *names)]))


def _plain(config: Any, resolve: bool = False) -> dict[str, Any]:
    found = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
