"""Moved to ``explain.trace``."""

from explain.trace import TraceError

__all__ = ["TraceError"]
