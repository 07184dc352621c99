"""The explainers that a caller from Python gives: one, several, or a mapping from names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import explain.explainers as explainers
from explain.explainers.base.explainer import Explainer

Choice = str | Explainer | Sequence[str | Explainer] | Mapping[str, str | Explainer]


def by_name(choice: Any) -> dict[str, str | Explainer]:
    """Return what a caller gave by name; an :class:`~explain.Explainer` without one gets that of its class.

    Raises:
        ValueError: Something else than names and explainers is given, nothing is, or two explainers have one name.
    """
    if isinstance(choice, Mapping):
        pairs = list(choice.items())
    elif isinstance(choice, Iterable) and not isinstance(choice, str):
        pairs = [(_name(each), each) for each in choice]
    else:
        pairs = [(_name(choice), choice)]
    if not pairs:
        raise ValueError("explainers: name at least one, such as weighted")
    given = dict(pairs)
    for name, each in pairs:
        if not isinstance(each, str | Explainer):
            raise ValueError(
                f"explainers: {name} is a {type(each).__name__}; give names or Explainer objects (functions and lists "
                "of scores are tested by perturbation.test)"
            )
        if each is not given[name] and each != given[name]:
            raise ValueError(f"explainers: two have the name {name}; give a mapping from names of your own")
    return given


def chosen_explainers(choice: Any) -> dict[str, Explainer]:
    """Return explainers by name, those that are given by name with their default options.

    Raises:
        ValueError: As :func:`by_name`; or a name is unknown, or an explainer needs samples of other images.
    """
    found = {name: _named(each) if isinstance(each, str) else each for name, each in by_name(choice).items()}
    for name, each in found.items():
        if each.partners:
            raise ValueError(f"explainer {name} needs samples of other images: use scripts/perturb.py, or another one")
    return found


def _name(explainer: Any) -> str:
    """Return the name of an explainer, without underscores that it has in ``configs/explainer``."""
    return explainer if isinstance(explainer, str) else type(explainer).__name__.lower()


def _named(name: str) -> Explainer:
    classes = {each.lower(): each for each in explainers.__all__}
    known = classes.get(name.replace("_", ""))
    if known is None:
        raise ValueError(f"explainer={name!r} is unknown: choose one of {', '.join(sorted(classes))}")
    made: Explainer = getattr(explainers, known)()
    return made
