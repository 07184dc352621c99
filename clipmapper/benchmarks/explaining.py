"""What explanations cost: against the recorded forward and backward pass they need, and one sample at a time."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from clipmapper.benchmarks.random_models import random_batch, random_clip, random_model
from clipmapper.benchmarks.timing import peak_memory, side_by_side
from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Explainer, Needs, explainers
from explain.adapters import trace_open_clip
from explain.capture.needs import EVERYTHING
from explain.capture.recording import record
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
    ways |= {name: partial(_needed, name) for name in ("rollout", "attention_gradcam")}
    ways["everything"] = _everything
    calls = {name: partial(run, model, pixels, questions) for name, run in ways.items()}
    seconds = side_by_side(calls, ROUNDS)
    memory = _peak(size, mapper, weighted=True) / _peak(size, mapper, weighted=False)
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
        f"{size}, CLIP alone: weighted, traced in the last blocks, times in all": _last_blocks(size, pixels, questions),
    }


def _last_blocks(size: str, pixels: Tensor, questions: TextBatch) -> float:
    """Time of weighted relevance of an image and a text from the last block of each tower, over that from all."""
    clip = random_clip(size)
    texts = nn.functional.pad(questions.ids, (0, clip.context_length - questions.ids.shape[1]))
    needs, towers = Needs.of([SHARING["weighted"]]), {"image": clip.visual.transformer, "text": clip.transformer}
    last = {modality: [len(tower.resblocks) - 1] for modality, tower in towers.items()}
    ways = {
        name: partial(trace_open_clip, clip, pixels, texts, needs=needs, layers=layers)
        for name, layers in {"last": last, "all": None}.items()
    }
    seconds = side_by_side(ways, ROUNDS)
    return seconds["last"] / seconds["all"]


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


def _needed(name: str, model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> Tensor:
    """One explainer, from a trace of no more than it needs."""
    traced = trace_vqa(model, pixels, questions, needs=Needs.of([SHARING[name]]))
    return SHARING[name](traced.trace, rows=traced.rows)


def _everything(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """A trace of everything but LRP relevance."""
    trace_vqa(model, pixels, questions, needs=EVERYTHING)


def _recorded(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """One forward pass that keeps every step, and one backward pass to all of them: nothing is explained or checked."""
    with record() as recorder:
        y = predicted(model(pixels, questions))
        torch.autograd.grad(y.sum(), recorder.live(), allow_unused=True)


def _alone(model: CLIPMapperVQA, pixels: Tensor, questions: TextBatch) -> None:
    """As the reference code works: each sample by itself, all of R."""
    for b in range(len(pixels)):
        valid = questions.valid[b]
        one = TextBatch(questions.ids[b : b + 1, valid], valid[valid][None], 0)
        traced = trace_vqa(model, pixels[b : b + 1], one)
        SHARING["weighted"](traced.trace).row(traced.rows)
