"""How many samples the engine should read together on this machine."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.removal.engine import CachedInputs, Engine

CANDIDATES = {"cpu": (8, 16, 32, 64, 128), "cuda": (64, 256, 1024)}


def fastest(model: CLIPMapperVQA, batch: QuestionBatch) -> int:
    """The candidate that reads most subsets a second, of pictures with half of their patches."""
    inputs = Engine(model, len(batch.pixels)).cache(batch.pixels, batch.text)
    candidates = CANDIDATES.get(batch.pixels.device.type, CANDIDATES["cuda"])
    kept = _halves(inputs, _together(Engine(model, max(candidates)), inputs))
    seconds = {size: min(_seconds(Engine(model, size), inputs, kept) for _ in range(3)) for size in candidates}
    return min(seconds, key=lambda size: seconds[size])


def _together(engine: Engine, inputs: CachedInputs) -> int:
    """How many subsets the engine takes at once of which half of the patches stay, and the class token."""
    tokens = inputs.image_embedded.shape[1]
    return engine.together(tokens, 1 + tokens // 2)


def _halves(inputs: CachedInputs, subsets: int) -> Tensor:
    """Different random halves of the patches, bool [B, M, 1 + P], for at least so many subsets in all."""
    batch, tokens = inputs.image_embedded.shape[:2]
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(batch, -(-subsets // batch), tokens - 1, generator=generator)
    halves = draws.argsort(2) < tokens // 2
    return torch.cat([halves.new_ones(*halves.shape[:2], 1), halves], 2).to(inputs.pixels.device)


def _seconds(engine: Engine, inputs: CachedInputs, kept: Tensor) -> float:
    """Seconds a subset where the engine's batch is full."""
    several = -(-_together(engine, inputs) // len(kept))
    start = time.perf_counter()
    engine.read(inputs, kept[:, :several], None, inputs.answers)
    if kept.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / (several * len(kept))
