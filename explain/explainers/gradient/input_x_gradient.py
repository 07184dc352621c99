"""Input × gradient on the input token embeddings, a control that reads no attention."""

import torch
from torch import Tensor

from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace, TraceError


class InputXGradient(TokenScores):
    """Signed scores Σ_channels E ⊙ ∂y/∂E, where E is a token's input embedding.

    The input embeddings are the tokens as they enter the first block. A score is the token's first-order contribution
    to y. See docs/method.md, Controls.

    Raises:
        TraceError: When called on a trace that lacks the embeddings or the gradients of a modality.
    """

    needs = ("inputs", "inputs_grad")
    control = True

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of all tokens in joint order, [B, N]."""
        inputs, grads = trace.inputs or {}, trace.inputs_grad or {}
        for modality in trace.sizes:
            if modality not in inputs or modality not in grads:
                raise TraceError(f"InputXGradient needs inputs and inputs_grad of {modality!r}")
        return torch.cat([(inputs[m] * grads[m]).sum(-1, dtype=trace.dtype) for m in trace.sizes], dim=1)
