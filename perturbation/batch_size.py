"""How many token subsets the engine should read together on this machine."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from clipmapper.subject import QuestionBatch
from clipmapper.vqa_model import CLIPMapperVQA
from perturbation.engine import Engine, Whole

CANDIDATES = {"cpu": (8, 16, 32, 64, 128), "cuda": (64, 256, 1024)}


def fastest(model: CLIPMapperVQA, batch: QuestionBatch) -> int:
    """The candidate that reads most subsets a second, of pictures with half of their patches."""
    whole = Engine(model, len(batch.pixels)).whole(batch.pixels, batch.text)
    candidates = CANDIDATES.get(batch.pixels.device.type, CANDIDATES["cuda"])
    kept = _halves(whole, max(candidates))
    rates = {size: min(_seconds(Engine(model, size), whole, kept, size) for _ in range(3)) for size in candidates}
    return min(rates, key=lambda size: rates[size] / size)


def _halves(whole: Whole, subsets: int) -> Tensor:
    """Different random halves of the patches, bool [B, M, 1 + P], for at least so many subsets in all."""
    batch, tokens = whole.image_embedded.shape[:2]
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(batch, -(-subsets // batch), tokens - 1, generator=generator)
    halves = draws.argsort(2) < tokens // 2
    return torch.cat([halves.new_ones(*halves.shape[:2], 1), halves], 2).to(whole.pixels.device)


def _seconds(engine: Engine, whole: Whole, kept: Tensor, size: int) -> float:
    """One pass of the engine over ``size`` subsets."""
    several = -(-size // len(kept))
    start = time.perf_counter()
    engine.read(whole, "image", kept[:, :several], whole.answers)
    if kept.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * size / (several * len(kept))
