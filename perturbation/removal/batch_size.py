"""The choice of the engine's batch size on this machine."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from clipmapper.encoder.towers import VisionTower
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from perturbation.removal.engine import CachedInputs, Engine, with_first

CANDIDATES = {"cpu": (8, 16, 32, 64, 128), "cuda": (64, 256, 1024)}


def fastest(model: CLIPMapperVQA, batch: QuestionBatch) -> int:
    """Return the candidate that reads the most subsets per second, for images with half of their patches removed."""
    inputs = Engine(model, len(batch.pixels)).cache(batch.pixels, batch.text)
    candidates = CANDIDATES.get(batch.pixels.device.type, CANDIDATES["cuda"])
    kept = _random_halves(inputs, model.encoder.vision, _subsets_at_once(Engine(model, max(candidates)), inputs))
    seconds = {
        size: min(_seconds_per_subset(Engine(model, size), inputs, kept) for _ in range(3)) for size in candidates
    }
    return min(seconds, key=lambda size: seconds[size])


def _subsets_at_once(engine: Engine, inputs: CachedInputs) -> int:
    """Return how many subsets the engine reads at once if each keeps half of the patches and the class token."""
    tokens, vision = inputs.image_embedded.shape[1], engine.model.encoder.vision
    return engine.together(tokens, vision.first + tokens // 2)


def _random_halves(inputs: CachedInputs, vision: VisionTower, subsets: int) -> Tensor:
    """Return kept masks of random halves of the patches, bool [B, M, F + P], with B·M at least ``subsets``."""
    batch, tokens = inputs.image_embedded.shape[:2]
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(batch, -(-subsets // batch), tokens - vision.first, generator=generator)
    halves = draws.argsort(2) < tokens // 2
    return with_first(halves, vision).to(inputs.pixels.device)


def _seconds_per_subset(engine: Engine, inputs: CachedInputs, kept: Tensor) -> float:
    """Measure the seconds per subset when the engine's batch is full."""
    several = -(-_subsets_at_once(engine, inputs) // len(kept))
    start = time.perf_counter()
    engine.read(inputs, kept[:, :several], None, inputs.answers)
    if kept.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / (several * len(kept))
