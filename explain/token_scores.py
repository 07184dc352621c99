"""Moved to ``explain.explainers.base.token_scores``."""

from explain.explainers.base.token_scores import TokenScores

__all__ = ["TokenScores"]
