"""Benchmark of a training step on random features: shares of its parts, and variants of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from clipmapper import nn as attention_module
from clipmapper.benchmarks.timing import side_by_side
from clipmapper.config.schema import Config
from clipmapper.data.images import FileImage
from clipmapper.data.records import Question, VQAData
from clipmapper.features.store import FeatureStore, FrozenFeatures
from clipmapper.tasks.vqa.answers import AnswerVocabulary
from clipmapper.tasks.vqa.data import VQADataset
from clipmapper.tasks.vqa.model import VQAMapper
from clipmapper.tasks.vqa.training import soft_label_loss
from clipmapper.training.module import build_optimizer

CONTEXT, ITEMS, ROUNDS = 40, 2000, 8
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """The sizes of an encoder's features and of an answer list."""

    image_tokens: int
    width: int
    text_width: int
    answers: int
    dtype: torch.dtype


TINY = Sizes(37, 128, 128, 35, torch.float32)
VQAV2 = Sizes(50, 768, 512, 3129, torch.float16)  #: ViT-B/32 on VQAv2
MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_linear")


def training_step(config: Config, device: torch.device = CPU) -> dict[str, float]:
    """Return shares (0..1) of the config's training step, and the times of variants relative to it, by name."""
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        dataset = random_dataset(Path(folder), TINY, ITEMS)
        model = VQAMapper(config.mapper, TINY.width, TINY.text_width, TINY.image_tokens, CONTEXT, TINY.answers).to(
            device
        )
        optimizer = build_optimizer(model, config.task.optim)
        rows = np.random.default_rng(0).integers(0, ITEMS, config.task.optim.batch_size).tolist()

        def step(precision: str = config.trainer.precision) -> None:
            batch = dataset[rows].to(device)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = soft_label_loss(model(batch.image, batch.text), batch.targets)
            loss.backward()
            optimizer.step()

        def fused() -> None:
            with patch.object(attention_module, "attention", torch.nn.functional.scaled_dot_product_attention):
                step()

        ways: dict[str, Callable[[], object]] = {"step": step, "fused": fused, "float": lambda: step("32-true")}
        seconds = side_by_side({**ways, "data": lambda: dataset[rows].to(device), "update": optimizer.step}, ROUNDS)
        share = {name: time / seconds["step"] for name, time in seconds.items()}
        return {
            "data path, share of a step": share["data"],
            "optimizer, share of a step": share["update"],
            "matrix products, share of the operators' time": _matrix_share(step, device),
            "fused attention, times the step as it is": share["fused"],
            "float32, times the step as it is": share["float"],
        }


def _matrix_share(step: Callable[[], None], device: torch.device) -> float:
    """Return the share of matrix products in the time of all operators on the device."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as profiler:
        for _ in range(3):
            step()
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = {
        event.key: float(getattr(event, own)) for event in profiler.key_averages() if event.key.startswith("aten::")
    }
    return sum(times.get(name, 0.0) for name in MATRIX_PRODUCTS) / sum(times.values())


def random_dataset(folder: Path, sizes: Sizes, items: int) -> VQADataset:
    """Return a dataset of as many random images as questions, of 7 to 14 tokens, whose features are in files."""
    draw = torch.Generator().manual_seed(0)
    lengths = np.random.default_rng(0).integers(7, 15, items).tolist()
    of_images, of_texts = (
        FeatureStore.written(folder / name, [torch.randn(n, width, generator=draw).to(sizes.dtype) for n in tokens])
        for name, width, tokens in (
            ("images", sizes.width, [sizes.image_tokens] * items),
            ("texts", sizes.text_width, lengths),
        )
    )
    answers = tuple(f"answer {k}" for k in range(sizes.answers))
    questions = tuple(
        Question(k, k, f"question {k}", tuple({"answer": answers[k % len(answers)], "answer_id": a} for a in range(10)))
        for k in range(items)
    )
    images = FrozenFeatures(of_images, {k: k for k in range(items)}, {})
    named = FrozenFeatures(of_texts, {q.question: q.image_id for q in questions}, {})
    data = VQAData(questions, {k: FileImage(folder / str(k)) for k in range(items)})
    return VQADataset(data, images, named, AnswerVocabulary(answers))
