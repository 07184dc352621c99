"""A control that ranks the tokens at random."""

from random import Random as Generator

import torch
from torch import Tensor

from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace


class Random(TokenScores):
    """Uniform random scores from 0 to 1.

    A token's score depends only on the seed, the sample's name, the modality and the token's position in it. A sample
    named in ``AttentionTrace.sample_ids`` therefore gets the same scores in any batch, with any padding, on any device
    and in a resumed run. Without names, the sample's position in the batch is its name. See docs/method.md, Controls.

    Args:
        seed: Seed of the draw.
    """

    seeded = True
    control = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """Return uniform random scores of all tokens, [B, N]."""
        names = range(trace.batch) if trace.sample_ids is None else trace.sample_ids
        draws = [[u for modality in trace.sizes for u in self._draw(trace, name, modality)] for name in names]
        return torch.tensor(draws, dtype=trace.dtype, device=trace.device)

    def _draw(self, trace: AttentionTrace, name: int | str, modality: str) -> list[float]:
        generator = Generator(f"{self.seed}/{name}/{modality}")
        return [generator.random() for _ in range(trace.sizes[modality])]
