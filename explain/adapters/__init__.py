"""Traces of third-party models, one file a model; each runs the unmodified model and leaves nothing on it.

traced = trace_vilt(model, inputs)                            # one forward and one backward pass for the batch
scores = traced.explain(explainers.Weighted())                # {"image": [B, P], "text": [B, n_words]}
rollout = explainers.Rollout()
traced = trace_vilt(model, inputs, needs=Needs.of([rollout])) # no more than rollout reads: no backward pass, no graph
traced = trace_vilt(model, inputs, layers=range(6, 12))       # the last six of twelve; the graph starts there
"""

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
