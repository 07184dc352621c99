"""Building the explainers that a config names."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from clipmapper.config.groups import chosen_configs
from clipmapper.config.options import check_options
from clipmapper.errors import UserError
from clipmapper.text import printable
from explain import Explainer, Needs
from explain.lrp.precision import chosen_precision


def usable_for(explainers: Mapping[str, Explainer], images: int) -> Mapping[str, Explainer]:
    """Return the explainers that can be used in a run with this many images, and report the others on stderr.

    Some explainers need a sample of another image. If all of them do, all are returned, and the run ends with an error.
    """
    enough = {name: each for name, each in explainers.items() if images > 1 or not each.partners}
    if not enough:
        return explainers
    for name in [name for name in explainers if name not in enough]:
        print(f"explainer {printable(name)} is left out: it needs a sample of another image", file=sys.stderr)
    return enough


def scoring(explainers: Mapping[str, Explainer], modalities: Collection[str]) -> dict[str, Explainer]:
    """Return the explainers that score one of these modalities, and report the others on stderr.

    Raises:
        UserError: No explainer scores one of them.
    """
    found = {name: each for name, each in explainers.items() if not set(modalities).isdisjoint(each.modalities)}
    for name in [name for name in explainers if name not in found]:
        print(
            f"explainer {printable(name)} is left out: it does not score {' or '.join(modalities)} tokens",
            file=sys.stderr,
        )
    if explainers and not found:
        raise UserError(f"explainer: none of {', '.join(explainers)} scores {' or '.join(modalities)} tokens")
    return found


def print_lrp_precision(explainers: Iterable[Explainer], model: nn.Module) -> None:
    """Print the precision in which the model's LRP pass runs, if an explainer reads LRP relevance."""
    if (precision := lrp_precision(explainers, model)) is not None:
        print(f"LRP runs in {'float64' if precision == 'float64' else 'the precision of the model'}", flush=True)


def lrp_precision(explainers: Iterable[Explainer], model: nn.Module) -> str | None:
    """Return ``float64`` or ``model``, the precision of the model's LRP pass; None if no explainer needs this pass."""
    needs = Needs.of(explainers)
    return None if needs.lrp is None else chosen_precision(model, needs.precision)


def choose_explainers(config: DictConfig, choice: str) -> dict[str, Explainer]:
    """Build the explainers of the config group ``explainer``, by name.

    Args:
        config: The composed group.
        choice: Name of the chosen file of the group.

    Raises:
        UserError: The choice is refused by :func:`~clipmapper.config.groups.chosen_configs`, or an option is refused by
            its explainer.
    """
    return build_explainers(chosen_configs("explainer", choice, config))


def build_explainers(configs: Mapping[str, Any]) -> dict[str, Explainer]:
    """Build the explainer of every config, by name.

    Raises:
        UserError: An option is refused by its explainer, or the config's class is not an explainer.
    """
    return {name: _build_explainer(name, config) for name, config in configs.items()}


def _build_explainer(name: str, config: Any) -> Explainer:
    check_options(f"explainer.{name}.", config)
    try:
        explainer = instantiate(config)
    except InstantiationException as error:  # its cause is the error that the explainer raised
        cause = error.__cause__ or error
        raise UserError(f"explainer={name}: {' '.join(str(cause).split())}") from error
    if not isinstance(explainer, Explainer):
        raise UserError(f"explainer={name}: {type(explainer).__name__} is not an explain.Explainer")
    return explainer
