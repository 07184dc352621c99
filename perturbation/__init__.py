"""Tests of explanations.

- :mod:`perturbation.perturb`: the perturbation tests, which remove tokens and run the model again
- :func:`perturbation.test` (:mod:`perturbation.pairs`): the same for any model that reads an image, a text or both
- :func:`clipmapper.load` (:mod:`perturbation.loaded`): a model as one object that explains its answers and tests them
- :mod:`perturbation.measures`: what these tests measure, one file per measure
- :mod:`perturbation.removal`: which tokens are removed, and how a model runs without them
- :mod:`perturbation.report`: rows, tables and figures of the results
- :mod:`perturbation.localise`: explanations compared with known evidence
- :mod:`perturbation.randomise`: the model randomisation test
- :mod:`perturbation.benchmark`: speed and memory of the perturbation tests
- :mod:`perturbation.commands`: entry points of the scripts
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perturbation.pairs.entry import test

__all__ = ["test"]


def __getattr__(name: str) -> Any:
    """Import :func:`test` when it is first used: it needs torch."""
    if name != "test":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perturbation.pairs.entry import test

    return test
