"""The explainers that a config names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from clipmapper.errors import UserError
from explain import Explainer
from explain.explainers import Shuffled

GROUP = Path(__file__).resolve().parents[2] / "configs" / "explainer"
SEVERAL = "names"  # the key of a config that names explainers instead of being one


def fitting(explainers: Mapping[str, Explainer], samples: int) -> Mapping[str, Explainer]:
    """All explainers; of a lone sample those that need no second one, unless there are no others."""
    alone = {name: each for name, each in explainers.items() if not isinstance(each, Shuffled)}
    if samples > 1 or not alone or len(alone) == len(explainers):
        return explainers
    tqdm.write("explainer shuffled is left out: it takes the weights of a second sample", file=sys.stderr)
    return alone


def choose_explainers(config: DictConfig, choice: str) -> dict[str, Explainer]:
    """The explainers of the config group ``explainer``, by name.

    Args:
        config: The composed group: one explainer's config, or ``names``: a list of them or ``all``.
        choice: What was chosen, the name of the only one.

    Raises:
        UserError: an unknown name, or an option that the explainer refuses.
    """
    if SEVERAL not in config:
        return {choice: _built(choice, config)}
    available = sorted(path.stem for path in GROUP.glob("*.yaml") if SEVERAL not in OmegaConf.load(path))
    names = available if config[SEVERAL] == "all" else list(config[SEVERAL])
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        wrong = unknown[0] if unknown else "an empty list"
        raise UserError(f"explainer.names: {wrong} is none of: {', '.join(available)}")
    return {name: _built(name, OmegaConf.load(GROUP / f"{name}.yaml")) for name in names}


def _built(name: str, config: Any) -> Explainer:
    try:
        explainer = instantiate(config)
    except InstantiationException as error:  # holds whatever the explainer's own check said
        cause = error.__cause__ or error
        raise UserError(f"explainer={name}: {' '.join(str(cause).split())}") from error
    if not isinstance(explainer, Explainer):
        raise UserError(f"explainer={name}: {type(explainer).__name__} is no explain.Explainer")
    return explainer
