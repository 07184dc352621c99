"""Explainers that fail, selected like a user's explainer: ``explainer.names=[odd] explainer.odd={_target_:…}``."""

from __future__ import annotations

from torch import Tensor

from explain import AttentionTrace, TraceError, explainers


class Refusing(explainers.Weighted):
    """An explainer that reports an error for every trace."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        raise TraceError("step 2 holds NaN")


class Broken(explainers.Weighted):
    """An explainer that gives one image token of the second sample the score NaN."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        scores = super().scores(trace, rows).clone()
        scores[1, 5] = float("nan")
        return scores
