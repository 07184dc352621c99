"""Moved to ``explain.explainers.base.explainer``."""

from explain.explainers.base.explainer import Explainer

__all__ = ["Explainer"]
