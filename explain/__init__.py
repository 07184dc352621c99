"""Explanations of attention models: turn the attention trace of any model into relevance scores for its tokens."""

from explain import explainers, targets
from explain.capture.needs import Needs
from explain.capture.recording import Recorder, active_recorder, record
from explain.explainers.base.explainer import Explainer
from explain.interaction import interaction, mutual_interaction
from explain.relevance import Relevance
from explain.trace import AttentionStep, AttentionTrace, TokenMap, TraceError
from explain.traced import Traced

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
    "explainers",
    "interaction",
    "mutual_interaction",
    "record",
    "targets",
]
