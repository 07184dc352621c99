"""Input × gradient on the input token embeddings, a control that looks at no attention."""

import torch
from torch import Tensor

from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace, TraceError


class InputXGradient(TokenScores):
    """Σ_channels E ⊙ ∂y/∂E of each token's input embedding E: its first-order share in y, signed.

    Raises:
        TraceError: when called on a trace without the embeddings or the gradients of every modality.
    """

    needs = ("inputs", "inputs_grad")

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """[B, N], in joint order."""
        inputs, grads = trace.inputs or {}, trace.inputs_grad or {}
        for modality in trace.sizes:
            if modality not in inputs or modality not in grads:
                raise TraceError(f"InputXGradient needs inputs and inputs_grad of {modality!r}")
        return torch.cat([(inputs[m] * grads[m]).sum(-1, dtype=trace.dtype) for m in trace.sizes], dim=1)
