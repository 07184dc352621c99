"""Traces of third-party models, one file a model; each runs the unmodified model and leaves nothing on it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain.adapters.lxmert import trace_lxmert
    from explain.adapters.open_clip import trace_open_clip
    from explain.adapters.vilt import trace_vilt

__all__ = ["trace_lxmert", "trace_open_clip", "trace_vilt"]


def __getattr__(name: str) -> Any:
    """The adapters, each imported when it is asked for: ``trace_vilt`` is in ``explain.adapters.vilt``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.removeprefix('trace_')}"), name)
