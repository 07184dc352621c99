"""CLIPmapper: training and evaluation of mappers on frozen CLIP encoders.

:func:`clipmapper.load` returns a trained model, to explain its answers and to test the explanations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perturbation.loaded.entry import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import :func:`load` when it is first used: it needs torch."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perturbation.loaded.entry import load

    return load
