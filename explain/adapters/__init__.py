"""Adapters: traces of third-party models, one file or package for each.

Each runs the unmodified model and removes its hooks.

Examples::

    traced = trace_vilt(model, inputs)                  # one forward and one backward pass for the batch
    scores = traced.explain(explainers.Weighted())      # {"image": [B, P], "text": [B, n_words]}

    needs = Needs.of([explainers.Rollout()])
    traced = trace_vilt(model, inputs, needs=needs)     # only what rollout reads: no backward pass and no graph

    traced = trace_vilt(model, inputs, layers=range(6, 12))  # the last six of twelve layers; the graph starts there
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain.adapters.hugging_face import trace_hugging_face
    from explain.adapters.lxmert import trace_lxmert
    from explain.adapters.open_clip import trace_open_clip
    from explain.adapters.vilt import trace_vilt

__all__ = ["trace_hugging_face", "trace_lxmert", "trace_open_clip", "trace_vilt"]


def __getattr__(name: str) -> Any:
    """Import an adapter on first access: ``trace_vilt`` is in ``explain.adapters.vilt``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.removeprefix('trace_')}"), name)
