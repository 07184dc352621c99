"""The explainers that a config names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from clipmapper.config.groups import chosen_configs
from clipmapper.errors import UserError
from explain import Explainer


def fitting(explainers: Mapping[str, Explainer], samples: int) -> Mapping[str, Explainer]:
    """All explainers; of a lone sample those that need no second one, unless there are no others."""
    enough = {name: each for name, each in explainers.items() if samples >= each.min_batch}
    if not enough:
        return explainers
    for name in [name for name in explainers if name not in enough]:
        print(f"explainer {name} is left out: it takes the weights of a second sample", file=sys.stderr)
    return enough


def choose_explainers(config: DictConfig, choice: str) -> dict[str, Explainer]:
    """Build the explainers of the config group ``explainer``, by name.

    Args:
        config: The composed group.
        choice: Which of its files was chosen.

    Raises:
        UserError: as :func:`~clipmapper.config.groups.chosen_configs`, or an option that the explainer refuses.
    """
    return build_explainers(chosen_configs("explainer", choice, config))


def build_explainers(configs: Mapping[str, Any]) -> dict[str, Explainer]:
    """Build an explainer of every config, by name.

    Raises:
        UserError: an option that the explainer refuses, or a class that is no explainer.
    """
    return {name: _built(name, config) for name, config in configs.items()}


def _built(name: str, config: Any) -> Explainer:
    try:
        explainer = instantiate(config)
    except InstantiationException as error:  # holds whatever the explainer's own check said
        cause = error.__cause__ or error
        raise UserError(f"explainer={name}: {' '.join(str(cause).split())}") from error
    if not isinstance(explainer, Explainer):
        raise UserError(f"explainer={name}: {type(explainer).__name__} is no explain.Explainer")
    return explainer
