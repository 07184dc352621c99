"""Integrated Gradients (Sundararajan et al. 2017) on the input token embeddings, by captum."""

import torch
from torch import Tensor

from explain.explainers.base.explainer import Passes
from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace


class IntegratedGradients(TokenScores):
    """Σ_channels of (E − E₀) ⊙ ∫ ∂y/∂E along the straight line from E₀ to the embeddings E, signed.

    Every token of E₀ is the mean of the sample's own embeddings of that modality, which tells the tokens apart in
    nothing. Zeros would be no start: a layer norm takes no notice of the length of its input, so that all of y's change
    along the line would lie next to zero. The scores sum to y(E) − y(E₀), up to the error of the integral's sum.

    Args:
        steps: Points of the line at which gradients are taken (Gauss-Legendre).

    Raises:
        ValueError: fewer than one step.
    """

    needs = ("inputs", "scalar")

    def __init__(self, steps: int = 32) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps}: must be 1 or more")
        self.steps = steps

    @property
    def passes(self) -> Passes:
        """The trace's forward pass, and one of each kind at every point of the line."""
        return Passes(1 + self.steps, self.steps)

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """[B, N], in joint order."""
        from captum.attr import IntegratedGradients as CaptumIntegratedGradients  # imports slowly

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
                internal_batch_size=trace.batch,  # one point of every sample's line at a time
            )
        return torch.cat([share.detach().sum(-1, dtype=trace.dtype) for share in shares], dim=1)


def _mean_token(trace: AttentionTrace, modality: str) -> Tensor:
    """[B, n, D], the mean over the valid tokens in every place."""
    assert trace.inputs is not None
    inputs, valid = trace.inputs[modality], trace.valid_tokens(modality)
    valid = inputs.new_ones(inputs.shape[:2], dtype=torch.bool) if valid is None else valid
    total = (inputs * valid[:, :, None]).sum(1, keepdim=True)
    return (total / valid.sum(1).clamp(min=1)[:, None, None]).expand_as(inputs)
