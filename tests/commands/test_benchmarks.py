"""The benchmarks: the two ways they compare give the same results, and are timed in alternation."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_benchmarks import shrink_benchmarks
from tiny_runs import composed

from clipmapper.benchmarks.captioning import (
    greedy_without_caches,
    random_caption_model,
    random_captions,
    words_apart,
    words_together,
)
from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.benchmarks.explaining import SHARING
from clipmapper.benchmarks.random_models import random_batch, random_model
from clipmapper.benchmarks.timing import highest_memory, peak_memory, side_by_side
from clipmapper.cli import typed
from clipmapper.nn import Tokens
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.vqa.tracing import trace_vqa
from perturbation.benchmark import stages
from perturbation.commands.benchmark import print_figures

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_ways_alternate_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.2 if len(order) < 3 else 0.02)

    seconds = side_by_side({"slow": slow, "none": lambda: order.append("none")}, rounds=3)
    assert order == ["slow", "none"] * 4
    assert 0.02 <= seconds["slow"] < 0.2
    assert seconds["none"] < 0.02


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_captions_are_the_same_with_and_without_caches(mapper: str) -> None:
    model = random_caption_model("tiny", mapper)
    vision = model.encoder.vision
    index = torch.arange(vision.token_count).expand(3, -1)
    features = torch.randn(3, vision.token_count, vision.width, generator=torch.Generator().manual_seed(1))
    image = Tokens(features, torch.ones_like(index, dtype=torch.bool), index)
    captions = greedy(model, image, 6)
    assert captions == greedy_without_caches(model, image, 6)
    assert [len(ids) for ids in captions] == [6, 6, 6]


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_words_have_the_same_explanations_together_and_separately(mapper: str) -> None:
    model = random_caption_model("tiny", mapper)
    pixels, captions = random_captions(model, 2, 3)
    together = words_together(model, pixels, captions).unflatten(0, (2, 3))
    apart = words_apart(model, pixels, captions)
    assert len(apart) == 3
    for place, rows in enumerate(apart):
        torch.testing.assert_close(together[:, place, : rows.shape[1]], rows, atol=1e-4, rtol=1e-3)
        assert not together[:, place, rows.shape[1] :].any()


def test_explainers_that_share_a_trace_need_no_separate_pass() -> None:
    model = random_model("tiny")
    traced = trace_vqa(model, *random_batch(model, 4))
    assert not any("attention_relevance" in each.needs or "scalar" in each.needs for each in SHARING.values())
    for each in SHARING.values():
        assert each(traced.trace, rows=traced.rows).shape == (4, traced.trace.tokens)


def test_the_parts_of_a_training_step_s_time_are_written(command: Command, tmp_path: Path) -> None:
    small = ("mapper.width=16", "mapper.heads=2", "mapper.layers=1", "task.optim.batch_size=8", "threads=1")
    status, out, errors = command("benchmark", "what=[training]", *small, f"hydra.run.dir={tmp_path}")
    assert (status, errors) == (0, [])
    figures = json.loads((tmp_path / "benchmark.json").read_text())
    shares = [value for name, value in figures.items() if "share" in name]
    assert len(shares) == 3
    assert all(0 < share < 1 for share in shares)
    fused = figures["fused attention, times the step as it is"]
    assert fused > 0
    assert re.search(rf"^fused attention, times the step as it is +↑ +{fused:.3f}$", out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "count"), [("encoding", 2), ("feeding", 4)])
def test_busy_shares_are_written(
    what: str, count: int, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They depend on other work of the machine; tests of reading ahead have readers that sleep or wait."""
    shrink_benchmarks(monkeypatch)
    assert command("benchmark", f"what=[{what}]", "threads=1", f"hydra.run.dir={tmp_path}")[0] == 0
    figures = json.loads((tmp_path / "benchmark.json").read_text())
    assert len([name for name, value in figures.items() if "busy share" in name and value > 0]) == count


@pytest.mark.slow
def test_every_stage_is_measured_in_a_process_of_its_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_benchmarks(monkeypatch)
    monkeypatch.setattr(stages, "STAGES", dict(list(stages.STAGES.items())[2:4]))
    small = ("sizes=[tiny]", "task.optim.batch_size=8", "trainer.max_steps=30", "threads=1")
    assert command("benchmark", "what=[stages]", *small, f"hydra.run.dir={tmp_path}")[0] == 0
    figures = json.loads((tmp_path / "benchmark.json").read_text())
    assert "tiny, training: hours for 240, extrapolated" in figures
    assert len([name for name in figures if name.endswith("highest memory of the process in MiB")]) == 2


def test_every_stage_does_the_work_of_its_items(tmp_path: Path) -> None:
    little = stages.Load(images=2, texts=4, steps=2, answered=8, explained=1, captions=2, product=64)
    config = typed(composed("benchmark", "task.optim.batch_size=4"), BenchmarkConfig)
    for name, build in stages.STAGES.items():
        (tmp_path / name).mkdir()
        stage = build(stages.Setup(config, "tiny", torch.device("cpu"), little, tmp_path / name))
        stage.run(), stage.run(), stage.bare()
        assert stage.items > 0


def test_costs_of_a_stage() -> None:
    def busy(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    stage = stages.Stage("work", "an item", lambda: busy(0.2), 4, lambda: busy(0.05), 2, 36_000)
    costs = stages.costs_of(stage, 1, torch.device("cpu"))
    assert costs["ms of processor time an item"] == pytest.approx(50, rel=0.1)
    assert costs["times the bare model"] == pytest.approx(2, rel=0.1)
    assert costs["hours for 36,000, extrapolated"] == pytest.approx(0.5, rel=0.1)
    assert costs["highest memory of the process in MiB"] > 100


def test_time_by_a_clock_and_memory_with_what_was_there() -> None:
    assert side_by_side({"asleep": lambda: time.sleep(0.2)}, 1, time.process_time)["asleep"] < 0.1
    held = torch.zeros(1 << 24)
    more = peak_memory(lambda: torch.zeros(1 << 24).add_(1))
    assert 48 << 20 < more < highest_memory(lambda: torch.zeros(1 << 24).add_(1)) - held.nbytes


@pytest.mark.parametrize("override", ["what=[nothing]", "what=[]", "sizes=[huge]"])
def test_an_unknown_benchmark_or_size_is_one_line(command: Command, override: str) -> None:
    status, _, errors = command("benchmark", override)
    assert (status, len(errors)) == (1, 1)
    assert "one of: " in errors[0]


#: For every number of the benchmarks, a part of its name, and whether more (↑) or less (↓) is better.
BETTER = {
    "data path, share of a step": "↓",
    "optimizer, share of a step": "↓",
    "matrix products, share of the operators' time": "↑",
    "fused attention, times the step as it is": "↑",  # than what is used
    "float32, times the step as it is": "↑",
    "weighted, times a recorded forward + backward": "↓",
    "explainers together, times the same": "↓",
    "weighted, times the rate of one sample at a time": "↑",
    "weighted, peak memory over that of the recorded pass": "↓",
    "a trace for rollout alone, times one of everything": "↓",
    "a trace for GradCAM alone, times one of everything": "↓",
    "a trace for TransAtt with LRP in float64, times in float32": "↓",
    "CLIP alone: weighted, traced in the last blocks, times in all": "↓",
    "tokens, without caches, times decoding with them": "↑",
    "words, a pass for each word, times one for all": "↑",
    "samples a second, times the plain loop's": "↑",
    "GFLOP needed a sample": "↓",
    "rate of needed operations, times a large product's": "↑",
    "bfloat16 weights, samples a second, times float32's": "↑",
    "bfloat16 weights, largest change of a probability's mean area in points": "↓",
    "seconds a sample, times": "↓",
    "further peak memory in MiB": "↓",
    "pairs a second, times those of one pair at a time": "↑",
    "the same subsets again, share of the first time": "↓",
    "cells removed: pairs a second, times those without keeping the text": "↑",
    "steps a second, times those of region perturbation": "↑",
    "ms of processor time a question": "↓",
    "times the bare model": "↓",
    "hours for 10,000, extrapolated": "↓",
    "highest memory of the process in MiB": "↓",
}


@pytest.mark.parametrize("name", BETTER)
def test_the_printed_direction_is_the_better_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_figures("perturbing, size tiny", {f"tiny, mapper b: {name}": 1.23456})
    out = capsys.readouterr().out
    assert re.search(rf" {BETTER[name]} +1\.235$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 100
