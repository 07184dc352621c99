"""Explainers that score the input tokens without a map."""

from abc import abstractmethod

from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.trace import AttentionTrace


class TokenScores(Explainer):
    """One score per token for the scalar y itself, so every row of R, of padded tokens too, holds the same scores.

    No attention is read. Padded tokens score 0.
    """

    last_only = True

    @abstractmethod
    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """[B, N]; what it says of padding is dropped."""

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """The scores in every row: a read-only view [B, N, N]."""
        return self._unpadded(trace)[:, None, :].expand(-1, trace.tokens, -1)

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """The scores [B, N], whatever the rows."""
        return self._unpadded(trace)

    def _unpadded(self, trace: AttentionTrace) -> Tensor:
        scores = self.token_scores(trace)
        return scores if trace.valid is None else scores.masked_fill(~trace.valid, 0)
