"""Integrated gradients (Sundararajan et al. 2017) on the input token embeddings, computed by captum."""

import torch
from torch import Tensor

from explain.explainers.base.explainer import Passes
from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace


class IntegratedGradients(TokenScores):
    """Signed scores Σ_channels (E − E₀) ⊙ ∫ ∂y/∂E along the straight line from E₀ to the input embeddings E.

    Every token of E₀ is the mean of the sample's embeddings of that modality, so E₀ does not distinguish between
    tokens. Zeros would be a bad start: a layer norm ignores the length of its input, so nearly all of the change in y
    along the line would happen close to zero. The scores sum to y(E) − y(E₀), up to the error of numerical integration.

    Args:
        steps: Number of points on the line at which gradients are computed (Gauss-Legendre).

    Raises:
        ValueError: ``steps`` is less than 1 or more than a million.
    """

    needs = ("inputs", "scalar")

    def __init__(self, steps: int = 32) -> None:
        if not 1 <= steps <= 10**6:
            raise ValueError(f"steps={steps}: must be 1 or more, and at most a million")
        self.steps = steps

    @property
    def passes(self) -> Passes:
        """The trace's forward pass, and one forward and one backward pass at every point of the line."""
        return Passes(1 + self.steps, self.steps)

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return the scores of all tokens in joint order, [B, N]."""
        from captum.attr import IntegratedGradients as CaptumIntegratedGradients  # imported here because it is slow

        assert trace.inputs is not None
        assert trace.scalar is not None
        scalar = trace.scalar
        modalities = list(trace.sizes)
        method = CaptumIntegratedGradients(
            lambda *inputs: scalar(dict(zip(modalities, inputs, strict=True))), multiply_by_inputs=True
        )
        with torch.enable_grad():
            shares = method.attribute(
                tuple(trace.inputs[modality] for modality in modalities),
                baselines=tuple(_mean_token(trace, modality) for modality in modalities),
                n_steps=self.steps,
                internal_batch_size=trace.batch,  # one point per sample in each pass
            )
        return torch.cat([share.detach().sum(-1, dtype=trace.dtype) for share in shares], dim=1)


def _mean_token(trace: AttentionTrace, modality: str) -> Tensor:
    """Return the mean of each sample's valid tokens, repeated at every position, [B, n, D]."""
    assert trace.inputs is not None
    inputs, valid = trace.inputs[modality], trace.valid_tokens(modality)
    valid = inputs.new_ones(inputs.shape[:2], dtype=torch.bool) if valid is None else valid
    total = (inputs * valid[:, :, None]).sum(1, keepdim=True)
    return (total / valid.sum(1).clamp(min=1)[:, None, None]).expand_as(inputs)
