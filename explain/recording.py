"""Moved to ``explain.capture.recording``."""

from explain.capture.recording import Recorder, active_recorder, record

__all__ = ["Recorder", "active_recorder", "record"]
