"""Benchmark of explanations against the recorded passes that they need, and against one sample at a time."""

from __future__ import annotations

from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from clipmapper.benchmarks.random_models import random_batch, random_clip, random_model
from clipmapper.benchmarks.timing import peak_memory, side_by_side
from clipmapper.encoder.load import TextBatch
from clipmapper.process.workers import pool
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Explainer, Needs, explainers
from explain.adapters import trace_open_clip
from explain.capture.needs import EVERYTHING
from explain.capture.recording import record
from explain.targets import predicted

BATCH, ROUNDS = 32, 3
# Explainers that can share one trace; LRP and Integrated Gradients need further passes through the model.
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


def explaining(size: str, mapper: str, device: torch.device | str = "cpu") -> dict[str, float]:
    """Return ratios of times and of peak memory for a batch of 32, by name."""
    model = random_model(size, mapper, device)
    pixels, questions = random_batch(model, BATCH)

    ways = {
        "recorded": _run_recorded,
        "weighted": _explain_weighted,
        "every": _explain_by_all,
        "alone": _explain_one_by_one,
    }
    ways |= {name: partial(_explain_from_needs, name) for name in ("rollout", "attention_gradcam")}
    ways["everything"] = _trace_everything
    calls = {name: partial(run, model, pixels, questions) for name, run in ways.items()}
    seconds = side_by_side(calls, ROUNDS)
    memory = _peak(size, mapper, device, weighted=True) / _peak(size, mapper, device, weighted=False)
    label = f"{size}, mapper {mapper}:"
    return {
        f"{label} weighted, times a recorded forward + backward": seconds["weighted"] / seconds["recorded"],
        f"{label} {len(SHARING)} explainers together, times the same": seconds["every"] / seconds["recorded"],
        f"{label} weighted, times the rate of one sample at a time": seconds["alone"] / seconds["weighted"],
        f"{label} weighted, peak memory over that of the recorded pass": memory,
        f"{label} a trace for rollout alone, times one of everything": seconds["rollout"] / seconds["everything"],
        f"{label} a trace for GradCAM alone, times one of everything": (
            seconds["attention_gradcam"] / seconds["everything"]
        ),
        f"{label} a trace for TransAtt with LRP in float64, times in float32": _float64_lrp(model, pixels, questions),
        f"{size}, CLIP alone: weighted, traced in the last blocks, times in all": _last_blocks(size, pixels, questions),
    }


def _float64_lrp(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> float:
    """Return the time of a trace for TransAtt whose LRP pass runs in float64, over that in the model's float32."""
    explained_by = {"float64": explainers.TransAtt("float64"), "model": explainers.TransAtt("model")}
    ways = {
        name: partial(trace_vqa, model, pixels, questions, needs=Needs.of([explainer]))
        for name, explainer in explained_by.items()
    }
    seconds = side_by_side(ways, ROUNDS)
    return seconds["float64"] / seconds["model"]


def _last_blocks(size: str, pixels: Tensor, questions: TextBatch) -> float:
    """Return the time of weighted relevance in CLIP traced in the last block of each tower, over that of all blocks."""
    clip = random_clip(size, pixels.device)
    texts = nn.functional.pad(questions.ids, (0, clip.context_length - questions.ids.shape[1]))
    needs, towers = Needs.of([SHARING["weighted"]]), {"image": clip.visual.transformer, "text": clip.transformer}
    last = {modality: [len(tower.resblocks) - 1] for modality, tower in towers.items()}
    ways = {
        name: partial(trace_open_clip, clip, pixels, texts, needs=needs, layers=layers)
        for name, layers in {"last": last, "all": None}.items()
    }
    seconds = side_by_side(ways, ROUNDS)
    return seconds["last"] / seconds["all"]


def _peak(size: str, mapper: str, device: torch.device | str, weighted: bool) -> float:
    """Return the peak memory of one call in a new process, in which no earlier call left memory to reuse."""
    with pool(1, get_context("spawn")) as processes:
        return processes.submit(_peak_here, size, mapper, str(device), weighted).result()


def _peak_here(size: str, mapper: str, device: str, weighted: bool) -> float:
    model = random_model(size, mapper, device)
    pixels, questions = random_batch(model, BATCH)
    run = _explain_weighted if weighted else _run_recorded
    return peak_memory(lambda: run(model, pixels, questions), device) or float("nan")


def _explain_weighted(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> Tensor:
    """Explain by weighted relevance, which carries only one row of R back through the steps."""
    traced = trace_vqa(model, pixels, questions)
    return SHARING["weighted"](traced.trace, rows=traced.rows)


def _explain_by_all(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> list[Tensor]:
    """Explain by all explainers that share a trace."""
    traced = trace_vqa(model, pixels, questions)
    return [each(traced.trace, rows=traced.rows) for each in SHARING.values()]


def _explain_from_needs(name: str, model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> Tensor:
    """Explain by one explainer, from a trace of only what it needs."""
    traced = trace_vqa(model, pixels, questions, needs=Needs.of([SHARING[name]]))
    return SHARING[name](traced.trace, rows=traced.rows)


def _trace_everything(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """Trace everything except LRP relevance."""
    trace_vqa(model, pixels, questions, needs=EVERYTHING)


def _run_recorded(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """Run one forward pass that records every step, and one backward pass to all steps, without explaining."""
    with record() as recorder:
        y = predicted(model(pixels, questions))
        torch.autograd.grad(y.sum(), recorder.live(), allow_unused=True)


def _explain_one_by_one(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """Explain each sample separately with the whole matrix R, as the reference code of the paper does."""
    for b in range(len(pixels)):
        valid = questions.valid[b]
        one = TextBatch(questions.ids[b : b + 1, valid], valid[valid][None], 0)
        traced = trace_vqa(model, pixels[b : b + 1], one)
        SHARING["weighted"](traced.trace).row(traced.rows)
