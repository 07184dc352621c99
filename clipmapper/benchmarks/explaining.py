"""What explanations cost: against the recorded forward and backward pass they need, and one sample at a time."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor

from clipmapper.benchmarks.random_models import random_batch, random_model
from clipmapper.benchmarks.timing import peak_memory, side_by_side
from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Explainer, explainers
from explain.recording import record
from explain.targets import predicted

BATCH, ROUNDS = 32, 3
# What one trace serves: no pass of their own through the model, as LRP and Integrated Gradients need.
SHARING: dict[str, Explainer] = {
    "weighted": explainers.Weighted(),
    "uniform": explainers.Uniform(),
    "constant": explainers.Constant(),
    "shuffled": explainers.Shuffled(),
    "raw_attention": explainers.RawAttention(),
    "rollout": explainers.Rollout(),
    "genatt": explainers.GenAtt(),
    "attention_gradcam": explainers.AttentionGradCAM(),
    "input_x_gradient": explainers.InputXGradient(),
    "random": explainers.Random(),
}


def explaining(size: str, mapper: str) -> dict[str, float]:
    """Ratios of times, and of peaks of memory, for a batch of 32."""
    model = random_model(size, mapper)
    pixels, questions = random_batch(model, BATCH)

    ways = {"recorded": _recorded, "weighted": _weighted, "every": _every, "alone": _alone}
    calls = {name: partial(run, model, pixels, questions) for name, run in ways.items()}
    seconds = side_by_side(calls, ROUNDS)
    memory = _peak(size, mapper, weighted=True) / _peak(size, mapper, weighted=False)
    label = f"{size}, mapper {mapper}:"
    return {
        f"{label} weighted, times a recorded forward + backward": seconds["weighted"] / seconds["recorded"],
        f"{label} {len(SHARING)} explainers together, times the same": seconds["every"] / seconds["recorded"],
        f"{label} weighted, times the rate of one sample at a time": seconds["alone"] / seconds["weighted"],
        f"{label} weighted, peak memory over that of the recorded pass": memory,
    }


def _peak(size: str, mapper: str, weighted: bool) -> float:
    """Peak of memory of one call, in a process of its own, where no earlier call left memory to be used again."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, size, mapper, weighted).result()


def _peak_here(size: str, mapper: str, weighted: bool) -> float:
    model = random_model(size, mapper)
    pixels, questions = random_batch(model, BATCH)
    run = _weighted if weighted else _recorded
    return peak_memory(lambda: run(model, pixels, questions)) or float("nan")


def _weighted(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> Tensor:
    """By the vector path."""
    traced = trace_vqa(model, pixels, questions)
    return SHARING["weighted"](traced.trace, rows=traced.rows)


def _every(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> list[Tensor]:
    """All that share a trace."""
    traced = trace_vqa(model, pixels, questions)
    return [each(traced.trace, rows=traced.rows) for each in SHARING.values()]


def _recorded(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """One forward pass that keeps every step, and one backward pass to all of them: nothing is explained or checked."""
    with record() as recorder:
        y = predicted(model(pixels, questions))
        live = [tensor for step in recorder._steps for tensor in step.tensors.values()]
        torch.autograd.grad(y.sum(), live, allow_unused=True)


def _alone(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """As the reference code works: each sample by itself, all of R."""
    for b in range(len(pixels)):
        valid = questions.valid[b]
        one = TextBatch(questions.ids[b : b + 1, valid], valid[valid][None], 0)
        traced = trace_vqa(model, pixels[b : b + 1], one)
        SHARING["weighted"](traced.trace).row(traced.rows)
