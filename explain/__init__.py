"""Explanations of attention models: turn the attention trace of any model into relevance scores for its tokens."""

from typing import TYPE_CHECKING, Any

from explain import explainers, targets
from explain.capture.needs import Needs
from explain.capture.recording import Recorder, active_recorder, record
from explain.explainers.base.explainer import Explainer
from explain.interaction import interaction, mutual_interaction
from explain.relevance import Relevance
from explain.trace import AttentionStep, AttentionTrace, TokenMap, TraceError
from explain.traced import Traced

if TYPE_CHECKING:
    from explain.sample.entry import explain

__all__ = [
    "AttentionStep",
    "AttentionTrace",
    "Explainer",
    "Needs",
    "Recorder",
    "Relevance",
    "TokenMap",
    "TraceError",
    "Traced",
    "active_recorder",
    "explain",
    "explainers",
    "interaction",
    "mutual_interaction",
    "record",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Import ``explain.explain`` on first access, since it also needs Pillow."""
    if name != "explain":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from explain.sample.entry import explain

    return explain
