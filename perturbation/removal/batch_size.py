"""How many samples the engine should read together on this machine."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.removal.engine import Engine, Whole

CANDIDATES = {"cpu": (8, 16, 32, 64, 128), "cuda": (64, 256, 1024)}


def fastest(model: CLIPMapperVQA, batch: QuestionBatch) -> int:
    """The candidate that reads most subsets a second, of pictures with half of their patches."""
    whole = Engine(model, len(batch.pixels)).whole(batch.pixels, batch.text)
    candidates = CANDIDATES.get(batch.pixels.device.type, CANDIDATES["cuda"])
    kept = _halves(whole, Engine(model, max(candidates)).together(whole, "image", _half(whole)))
    seconds = {size: min(_seconds(Engine(model, size), whole, kept) for _ in range(3)) for size in candidates}
    return min(seconds, key=lambda size: seconds[size])


def _half(whole: Whole) -> int:
    """How many tokens stay: half of the patches, and the class token."""
    return 1 + whole.image_embedded.shape[1] // 2


def _halves(whole: Whole, subsets: int) -> Tensor:
    """Different random halves of the patches, bool [B, M, 1 + P], for at least so many subsets in all."""
    batch, tokens = whole.image_embedded.shape[:2]
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(batch, -(-subsets // batch), tokens - 1, generator=generator)
    halves = draws.argsort(2) < tokens // 2
    return torch.cat([halves.new_ones(*halves.shape[:2], 1), halves], 2).to(whole.pixels.device)


def _seconds(engine: Engine, whole: Whole, kept: Tensor) -> float:
    """Of one subset, where as many as the engine takes at once are read."""
    several = -(-engine.together(whole, "image", _half(whole)) // len(kept))
    start = time.perf_counter()
    engine.read(whole, "image", kept[:, :several], whole.answers)
    if kept.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / (several * len(kept))
