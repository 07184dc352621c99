"""Controls that rank the tokens of one modality by their position alone."""

import torch
from torch import Tensor

from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace


class FirstToLast(TokenScores):
    """The number of text tokens from a token to the end, so that the first token scores highest.

    See docs/method.md, Controls.
    """

    control = True
    modalities = ("text",)

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of the text tokens, and 0 for all other tokens, [B, N]."""
        scores, text = _zeros(trace), trace.span("text")
        scores[:, text] = _counted(trace).flip(1).cumsum(1).flip(1)
        return scores


class LastToFirst(TokenScores):
    """The number of text tokens up to a token, so that the last token scores highest.

    See docs/method.md, Controls.
    """

    control = True
    modalities = ("text",)

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of the text tokens, and 0 for all other tokens, [B, N]."""
        scores, text = _zeros(trace), trace.span("text")
        scores[:, text] = _counted(trace).cumsum(1)
        return scores


class CentreFirst(TokenScores):
    """The closeness of a patch to the centre of the image.

    A score is the largest squared distance of any patch to the centre minus the patch's own, in units of half a patch.
    Patches at the same distance have equal scores. See docs/method.md, Controls.
    """

    control = True
    modalities = ("image",)
    needs = ("grid",)

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of the patches, and 0 for all other tokens, [B, N]."""
        assert trace.grid is not None
        rows, cols = (2 * torch.arange(count, device=trace.device) - (count - 1) for count in trace.grid)
        distances = (rows[:, None] ** 2 + cols**2).flatten()
        scores, end = _zeros(trace), trace.span("image").stop
        scores[:, end - len(distances) : end] = (distances.max() - distances).to(scores)
        return scores


def _zeros(trace: AttentionTrace) -> Tensor:
    return torch.zeros(trace.batch, trace.tokens, dtype=trace.dtype, device=trace.device)


def _counted(trace: AttentionTrace) -> Tensor:
    """Return 1 for every valid text token and 0 for padding, [B, n_t]."""
    valid = trace.valid_tokens("text")
    return torch.ones(trace.batch, trace.sizes["text"], device=trace.device) if valid is None else valid.to(trace.dtype)
