"""Configs of several members of a config group, for commands that run several explainers or measures.

Hydra composes only one choice of a group. If several members run, the config of each one is composed from its file on
Hydra's search path, which ``--config-dir`` extends. Options for a member are given below the group by its name:
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

NAMES = "names"  # the key of a choice that lists members instead of being a member
TARGET = "_target_"  # the key that makes options a complete config, which needs no file


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a command, as its command line composes it."""
    with _search_path():
        return compose(command, list(overrides))


def chosen_configs(
    group: str, choice: str, config: DictConfig, further: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the config of every member of ``group`` that runs, by name.

    Args:
        group: The config group.
        choice: The chosen file.
        config: The composed group. It contains the keys of the chosen file, ``names`` (a list, or ``all``) if several
            members run, and options by member name.
        further: Names of additional members to run.

    Raises:
        UserError: There is no file for a name, an option is not a key of the member's file, or options are given for a
            member that does not run.
    """
    given = _to_dict(config, resolve=True)
    with _search_path():
        own = _to_dict(OmegaConf.create(_compose(group, [choice])[choice], parent=config), resolve=True)
        chosen = given.pop(NAMES, [choice])
        names = list(dict.fromkeys([*(_members(group) if chosen == "all" else chosen), *further]))
        if not names:
            raise UserError(f"{group}.{NAMES}: the list is empty; give one or more of: {', '.join(_members(group))}")
        if NAMES not in own:
            kept = {key: given.pop(key) for key in list(given) if key in own}
            if choice in names:
                given[choice] = _merge_options(group, {choice: kept}, {choice: given.get(choice, {})})[choice]
            elif kept != own:
                changed = next(key for key in own if kept.get(key) != own[key])
                raise UserError(f"{group}.{changed}: {choice} does not run, only {', '.join(names)}")
        _check_options(group, given, names)
        return named_configs(group, names, given, config)


def named_configs(
    group: str, names: Sequence[str], options: Mapping[str, Any], parent: DictConfig | None = None
) -> dict[str, dict[str, Any]]:
    """Return the config of each of ``names``: the content of its file, changed by its options.

    Args:
        group: The config group.
        names: Files of the group, or names whose options are a complete config with ``_target_``.
        options: Options by name.
        parent: The config in which interpolations look up the other keys of the run.

    Raises:
        UserError: There is no file for a name, or an option is not a key of the member's file.
    """
    whole = {name: options[name] for name in names if TARGET in options.get(name, {})}
    filed = [name for name in names if name not in whole]
    with _search_path():
        if unknown := [name for name in filed if name not in _files(group)]:
            raise UserError(f"{group}.{NAMES}: {unknown[0]} is not one of: {', '.join(_members(group))}")
        found = whole | _merge_options(group, _compose(group, filed), {name: options.get(name, {}) for name in filed})
    return {name: _to_dict(OmegaConf.create(found[name], parent=parent), resolve=True) for name in names}


@contextmanager
def _search_path() -> Iterator[None]:
    """Use the search path of the running command, or the project's configs if no command is running."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            yield


def _files(group: str) -> list[str]:
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group, ObjectType.CONFIG, None, _search_path_overrides())


def _search_path_overrides() -> list[str]:
    """Return the overrides ``hydra.searchpath=…`` of the command line, which Hydra does not apply to later calls."""
    if not HydraConfig.initialized():
        return []
    return [override for override in HydraConfig.get().overrides.hydra if override.startswith("hydra.searchpath=")]


def _members(group: str) -> list[str]:
    """Return the names of all files of a group, without those that list other members."""
    return [name for name, config in _compose(group, _files(group)).items() if NAMES not in config]


def _compose(group: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    members = [f"+{group}@{name}={name}" for name in names]
    found = _to_dict(compose(overrides=members + _search_path_overrides()))
    return {name: found[name] for name in names}


def _merge_options(group: str, base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the options merged in; raise UserError for an option that ``base`` does not have."""
    shape = OmegaConf.create({group: dict(base)})
    OmegaConf.set_struct(shape, True)
    try:
        merged = OmegaConf.merge(shape, {group: dict(options)})
    except OmegaConfBaseException as error:
        raise UserError(key_problem(error)) from error
    found: dict[str, Any] = _to_dict(merged)[group]
    return found


def _check_options(group: str, options: Mapping[str, Any], names: Sequence[str]) -> None:
    for key, value in options.items():
        if key in names and isinstance(value, Mapping):
            continue
        if isinstance(value, Mapping):
            raise UserError(f"{group}.{key}: {key} does not run; options can be given for {', '.join(names)}")
        raise UserError(unknown_key(f"{group}.{key}", [f"{group}.{name}" for name in (NAMES, *names)]))


def _to_dict(config: Any, resolve: bool = False) -> dict[str, Any]:
    found = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
