"""A control: a random order of the tokens."""

from random import Random as Generator

import torch
from torch import Tensor

from explain.explainers.base.token_scores import TokenScores
from explain.trace import AttentionTrace


class Random(TokenScores):
    """Uniform scores from 0 to 1; what a sample draws depends on the seed, its name and its modality's token alone.

    So a sample named in ``AttentionTrace.sample_ids`` scores the same in any batch, at any padding, on any device, and
    in a run that was taken up again. Without names its place in the batch is its name.

    Args:
        seed: Another seed gives another order.
    """

    seeded = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        """[B, N], uniform."""
        names = range(trace.batch) if trace.sample_ids is None else trace.sample_ids
        draws = [[u for modality in trace.sizes for u in self._draw(trace, name, modality)] for name in names]
        return torch.tensor(draws, dtype=trace.dtype, device=trace.device)

    def _draw(self, trace: AttentionTrace, name: int | str, modality: str) -> list[float]:
        generator = Generator(f"{self.seed}/{name}/{modality}")
        return [generator.random() for _ in range(trace.sizes[modality])]
