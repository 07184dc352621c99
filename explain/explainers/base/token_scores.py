"""Base class of explainers that score the input tokens directly, without a relevance map."""

from abc import abstractmethod

from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.trace import AttentionTrace


class TokenScores(Explainer):
    """Base class of explainers that give one score per token, for the scalar y itself.

    They read no attention. Every row of R holds the same scores, including the rows of padded tokens. Padded tokens
    score 0.
    """

    last_only = True

    @abstractmethod
    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of all tokens, [B, N]; entries at padding are ignored."""

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R with the scores in every row, a read-only view [B, N_rows, N]."""
        return self._unpadded(trace)[:, None, :].expand(-1, trace.final.tokens, -1)

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Return the scores [B, N], which are the same for all ``rows``."""
        return self._unpadded(trace)

    def _unpadded(self, trace: AttentionTrace) -> Tensor:
        scores = self.token_scores(trace)
        return scores if trace.valid is None else scores.masked_fill(~trace.valid, 0)
