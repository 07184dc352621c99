"""Benchmark of the data path of training: how much of the time the device computes instead of waiting for batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from clipmapper.benchmarks.timing import side_by_side
from clipmapper.benchmarks.training import CONTEXT, ITEMS, TINY, VQAV2, Sizes, random_dataset
from clipmapper.config.schema import Config
from clipmapper.tasks.vqa.data import VQABatch, VQADataset
from clipmapper.tasks.vqa.model import VQAMapper
from clipmapper.tasks.vqa.training import soft_label_loss
from clipmapper.training.batches import StepSampler
from clipmapper.training.module import build_optimizer
from clipmapper.training.read_ahead import ReadAhead

STEPS, ROUNDS = 30, 3
SIMULATED = 0.010  # seconds of a step of the simulated device


def feeding(config: Config, device: torch.device) -> dict[str, float]:
    """Return busy shares, 0 to 1: the time of computing alone, divided by that of whole steps, by name.

    A simulated device sleeps for a fixed time instead of computing, so that it needs neither a processor nor the data.
    Its batches are as large as those of VQAv2 and ViT-B/32; the real device trains the config's mapper.

    Args:
        config: The benchmark's config.
        device: The real device.
    """
    size = config.task.optim.batch_size
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        large = random_dataset(Path(folder) / "vqav2", VQAV2, ITEMS)
        for pin in {False, torch.cuda.is_available()}:
            name = f"simulated steps of {SIMULATED * 1e3:.0f} ms, ViT-B/32, batch {size}{', pinned' if pin else ''}"
            figures |= _shares(name, large, size, lambda batch: time.sleep(SIMULATED), pin)
        for sizes, label in ((TINY, "tiny"), (VQAV2, "ViT-B/32"))[: 1 + (device.type == "cuda")]:
            dataset = large if sizes is VQAV2 else random_dataset(Path(folder) / "tiny", sizes, ITEMS)
            step = _training_step(config, sizes, device)
            name = f"{device.type}, {label}, mapper {config.mapper.name}, batch {size}"
            figures |= _shares(name, dataset, size, step, device.type == "cuda")
    return figures


def _shares(
    name: str, dataset: VQADataset, size: int, compute: Callable[[VQABatch], object], pin: bool
) -> dict[str, float]:
    loader: DataLoader[VQABatch] = DataLoader(
        dataset, sampler=StepSampler(len(dataset), size, STEPS, seed=0), batch_size=None
    )
    one = next(iter(loader))
    ways: dict[str, Iterable[VQABatch]] = {
        "alone": [one] * STEPS,
        "ahead": ReadAhead(loader, pin),
        "in turns": loader,
    }
    runs = {way: _run(batches, compute) for way, batches in ways.items()}
    seconds = side_by_side(runs, ROUNDS)
    return {
        f"{name}: busy share, batches read ahead": seconds["alone"] / seconds["ahead"],
        f"{name}: busy share, each batch read before its step": seconds["alone"] / seconds["in turns"],
    }


def _run(batches: Iterable[VQABatch], compute: Callable[[VQABatch], object]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches:
            compute(batch)

    return run


def _training_step(config: Config, sizes: Sizes, device: torch.device) -> Callable[[VQABatch], None]:
    mapper = replace(config.mapper, width=sizes.width, heads=12) if sizes is VQAV2 else config.mapper
    model = VQAMapper(mapper, sizes.width, sizes.text_width, sizes.image_tokens, CONTEXT, sizes.answers).to(device)
    optimizer = build_optimizer(model, config.task.optim)

    def step(batch: VQABatch) -> None:
        moved = batch.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.trainer.precision == "bf16-mixed"):
            loss = soft_label_loss(model(moved.image, moved.text), moved.targets)
        loss.backward()
        optimizer.step()

    return step
