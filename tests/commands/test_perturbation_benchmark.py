"""The perturbation benchmark: its two ways give the same results, and it counts the engine's operations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from models import random_vqa, samples
from tiny_runs import composed
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.cli import typed
from clipmapper.encoder.load import TextBatch
from explain.targets import predicted
from perturbation.benchmark import perturbing as benchmark
from perturbation.benchmark.operations import Operations
from perturbation.benchmark.perturbing import (
    PAPER,
    STEPS,
    CurveRecorder,
    Load,
    operations_needed,
    questions_of,
    read_curves,
)
from perturbation.benchmark.plain_loop import plain_loop
from perturbation.measures.base import SAMPLES
from perturbation.perturb.vqa import explained_questions
from perturbation.removal.engine import Engine, VQAReader


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def config(mapper: str = "b") -> BenchmarkConfig:
    checked: BenchmarkConfig = typed(composed("benchmark", f"mapper={mapper}"), BenchmarkConfig)
    return checked


def counted(run: Callable[[], object]) -> int:
    """Run a function and count the operations of its matrix products, including attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", ["a", "b"])
def test_operations_of_a_reading_equal_the_counted_ones(name: str, layers: int) -> None:
    model, (pixels, questions) = random_vqa(name), samples(4)
    mapper = model.trained.mapper
    for blocks in ("attentions", "feed_forwards", "image_layers", "text_layers"):
        if hasattr(mapper, blocks):
            mapper.register_module(blocks, mapper.get_submodule(blocks)[:layers])
    if layers == 3 and name == "b":
        for blocks in (mapper.image_layers, mapper.text_layers):
            blocks.append(blocks[1])
    valid = questions.valid[3]
    one = TextBatch(questions.ids[3:4, valid], valid[valid][None], 0)
    operations, n, engine = Operations(model), int(valid.sum()), Engine(model, 4)
    whole = operations.embedding() + operations.image(10) + operations.text(n) + operations.answer(10, n)
    assert counted(lambda: engine.cache(pixels[3:], one)) == whole
    read = engine.cache(pixels[3:], one)
    kept = torch.ones(1, 1, 10, dtype=torch.bool).index_fill(2, torch.tensor([2, 5, 7]), False)
    found = counted(lambda: engine.read(read, kept, None, read.answers))
    assert found == operations.image(7) + operations.answer(7, n)
    kept = valid[valid][None, None].index_fill(2, torch.tensor([1, 4]), False)
    found = counted(lambda: engine.read(read, None, kept, read.answers))
    assert found == operations.text(n - 2) + operations.answer(10, n - 2)


def test_operations_needed_equal_those_of_the_engine_for_one_sample() -> None:
    model = benchmark.random_model("tiny")
    batch = questions_of(model, 1)
    operations, n = Operations(model), int(batch.text.valid.sum())
    patches = model.encoder.vision.token_count
    whole = operations.image(patches) + operations.text(n) + operations.answer(patches, n)
    traced = 2 * whole

    explained = explained_questions(model, batch, benchmark.candidates(PAPER), predicted)

    reader = VQAReader(Engine(model, 32))
    found = counted(lambda: read_curves(reader, reader.samples(batch), explained))
    assert found + traced == operations_needed(model, batch, PAPER)


def test_the_plain_loop_gives_the_engines_results() -> None:
    model = benchmark.random_model("tiny")
    batch = questions_of(model, 2)
    tables = CurveRecorder(model, PAPER, 16).record(batch)[SAMPLES]
    logits = plain_loop(model, batch.pixels, batch.text, PAPER, STEPS)
    assert len(tables) == len(logits) == 16
    for table in tables:
        each = logits[tuple(table[name][0].as_py() for name in ("explainer", "modality", "direction"))]
        best = each[:, :1].argmax(2, keepdim=True).expand(-1, len(STEPS), 1)
        expected = each.gather(2, best)[:, :, 0].sigmoid().numpy()
        np.testing.assert_allclose(table["probability"].to_pylist(), expected, atol=1e-5)


@pytest.mark.slow
def test_every_figure_is_a_positive_number() -> None:
    little = Load(samples=2, plain_samples=1, engine_batch=32, rounds=1, product=64, many=4, few=2)
    found = benchmark.perturbing(config(), "tiny", little)
    assert len(found) == 10
    assert all(np.isfinite(value) for value in found.values())
    assert all(value > 0 for name, value in found.items() if "memory" not in name and "change" not in name)
