"""Explainers that go wrong, chosen as a user's own are: ``explainer.names=[odd] explainer.odd={_target_:…}``."""

from __future__ import annotations

from torch import Tensor

from explain import AttentionTrace, TraceError, explainers


class Refusing(explainers.Weighted):
    """Finds something wrong with every trace."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        raise TraceError("step 2 holds NaN")


class Broken(explainers.Weighted):
    """Scores one image token of the second sample NaN."""

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        scores = super().scores(trace, rows).clone()
        scores[1, 5] = float("nan")
        return scores
