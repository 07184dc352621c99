"""The benchmark of the perturbation tests.

It compares the engine with the plain loop (``perturbation.benchmark.plain_loop``), its rate of operations with that of
a large matrix product on the same machine, bfloat16 with float32, and the time and memory of many samples with those of
few.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from clipmapper.benchmarks.random_models import device_of, random_batch, random_model
from clipmapper.benchmarks.timing import peak_memory, side_by_side
from clipmapper.config.schema import Config
from clipmapper.data.records import Question
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch
from explain import Explainer, explainers
from explain.targets import given, predicted
from perturbation.benchmark.operations import Operations
from perturbation.benchmark.plain_loop import plain_loop
from perturbation.measures.areas import Areas
from perturbation.measures.base import SAMPLES, ExplainedBatch, ScoredBy
from perturbation.perturb.candidates import Candidate
from perturbation.perturb.parts import Tables, write_part
from perturbation.perturb.records import record_batch
from perturbation.perturb.vqa import explained_questions
from perturbation.removal.engine import Engine, QuestionSamples, VQAReader
from perturbation.removal.order import Direction, kept_masks
from perturbation.removal.steps import parse_steps
from perturbation.report.curves import areas

ONE: dict[str, Explainer] = {"weighted": explainers.Weighted()}
PAPER: dict[str, Explainer] = {
    **ONE,
    "uniform": explainers.Uniform(),
    "rollout": explainers.Rollout(),
    "genatt": explainers.GenAtt(),
}
STEPS, DIRECTIONS = parse_steps("paper"), get_args(Direction)


@dataclass(frozen=True)
class Load:
    """The amount of work to measure."""

    samples: int  #: samples that the engine reads
    plain_samples: int  #: samples that the plain loop reads
    engine_batch: int
    rounds: int = 2
    product: int = 2048  #: rows and columns of the large matrix product
    many: int = 800  #: number of samples whose peak memory is compared with that of ``few``
    few: int = 100


LOADS = {"tiny": Load(32, 3, 32), "vit_b_32": Load(8, 1, 8)}


def perturbing(
    config: Config, size: str, load: Load | None = None, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Measure the perturbation tests of one model size and return the numbers by name.

    Args:
        config: The benchmark's config.
        size: Size of the model, a key of ``LOADS``.
        load: The amount of work; ``LOADS[size]`` by default.
        device: Device of the model.

    Returns:
        Samples per second as ratios, operations per sample, the rate of operations, and, for the size ``tiny``, how
        time and memory grow with the number of samples.
    """
    load = load or LOADS[size]
    model = random_model(size, config.mapper.name, device)
    batch = questions_of(model, load.samples)
    label = f"{size}, mapper {config.mapper.name}:"
    found: dict[str, float] = {}
    for chosen in (ONE, PAPER):
        name = "weighted" if chosen is ONE else f"{len(PAPER)} explainers"
        found |= {f"{label} {name}, {key}": value for key, value in _measure_rates(model, load, batch, chosen).items()}
    found |= {f"{label} weighted, {key}": value for key, value in _compare_bfloat16(model, load, batch).items()}
    if size == "tiny":
        found |= {f"{label} {key}": value for key, value in _compare_sample_counts(model, load).items()}
    return found


@dataclass(frozen=True, eq=False)
class CurveRecorder:
    """A recorder of only the four curves of each explainer: two modalities, two directions."""

    model: CLIPMapperVQA
    explainers: dict[str, Explainer]
    engine_batch: int

    def record(self, batch: QuestionBatch) -> Tables:
        """Explain a batch and return its records."""
        reader = VQAReader(Engine(self.model, self.engine_batch))
        samples = reader.samples(batch)
        target = given(samples.inputs.answers)
        return read_curves(reader, samples, explained_questions(self.model, batch, candidates(self.explainers), target))


def read_curves(reader: VQAReader, samples: QuestionSamples, explained: ExplainedBatch) -> Tables:
    """Return the records of samples that are already explained."""
    return record_batch({"areas": Areas(STEPS, DIRECTIONS, {})}, explained, reader, samples, samples.inputs.answers)


def candidates(chosen: dict[str, Explainer]) -> list[Candidate]:
    """Return one candidate per explainer; none of them draws at random."""
    return [Candidate(ScoredBy(name), explainer) for name, explainer in chosen.items()]


def questions_of(model: CLIPMapperVQA, count: int) -> QuestionBatch:
    """Return ``count`` questions of random words about images of noise, each with ten human answers."""
    pixels, text = random_batch(model, count)
    answers = [tuple({"answer": model.answers[(k + a) % 7], "answer_id": a} for a in range(10)) for k in range(count)]
    questions = tuple(Question(k, k, f"question {k}", answers[k]) for k in range(count))
    return QuestionBatch(questions, (), pixels, text)


def operations_needed(model: CLIPMapperVQA, batch: QuestionBatch, chosen: dict[str, Explainer]) -> int:
    """Count the matrix-product operations that all samples need: every distinct subset read once, and one trace each.

    A trace counts as two forward passes, one for its backward pass. That is too little, since the backward pass of
    attention costs twice its forward pass. Questions count at their true lengths; the explainers' own matrix products
    are not counted.
    """
    explained = explained_questions(model, batch, candidates(chosen), predicted)
    operations, patches = Operations(model), model.encoder.vision.token_count
    lengths = batch.text.valid.sum(1).tolist()
    total = 0
    for n in lengths:
        read = operations.image(patches) + operations.text(n) + operations.answer(patches, n)
        total += 3 * read + operations.embedding()
    for modality, tokens in explained.tokens.items():
        ties, every = explained.ties(modality), itertools.product(tokens.scores.values(), DIRECTIONS)
        masks = np.concatenate([kept_masks(each, tokens.removable, STEPS, d, ties) for each, d in every], axis=1)
        for n, removable, of_sample in zip(lengths, tokens.removable, masks, strict=True):
            removed = [int((removable & ~mask).sum()) for mask in np.unique(of_sample, axis=0)]
            for k in filter(None, removed):
                if modality == "image":
                    total += operations.image(patches - k) + operations.answer(patches - k, n)
                else:
                    total += operations.text(n - k) + operations.answer(patches, n - k)
    return total


def _measure_rates(
    model: CLIPMapperVQA, load: Load, batch: QuestionBatch, chosen: dict[str, Explainer]
) -> dict[str, float]:
    recorder = CurveRecorder(model, chosen, load.engine_batch)
    alone = random_batch(model, load.plain_samples)
    factor = torch.randn(load.product, load.product, device=batch.pixels.device)
    ways = {
        "plain": lambda: plain_loop(model, *alone, chosen, STEPS),
        "engine": lambda: recorder.record(batch),
        "product": lambda: [factor @ factor for _ in range(4)],
    }
    seconds = side_by_side(ways, load.rounds)
    needed = operations_needed(model, batch, chosen)
    machine = 4 * 2 * load.product**3 / seconds["product"]
    return {
        "samples a second, times the plain loop's": seconds["plain"]
        / load.plain_samples
        / (seconds["engine"] / load.samples),
        "GFLOP needed a sample": needed / load.samples / 1e9,
        "rate of needed operations, times a large product's": needed / seconds["engine"] / machine,
    }


def _compare_bfloat16(model: CLIPMapperVQA, load: Load, batch: QuestionBatch) -> dict[str, float]:
    """Compare bfloat16 weights with float32 weights: the ratio of the rates, and the largest change of an area."""
    half = deepcopy(model).to(torch.bfloat16)
    pixels = batch.pixels.to(torch.bfloat16)
    short = replace(batch, pixels=pixels)
    whole, halved = (CurveRecorder(m, ONE, load.engine_batch) for m in (model, half))
    ways = {"float": lambda: whole.record(batch), "bfloat": lambda: halved.record(short)}
    seconds = side_by_side(ways, load.rounds)
    moved = np.abs(_mean_areas(halved.record(short)) - _mean_areas(whole.record(batch)))
    return {
        "bfloat16 weights, samples a second, times float32's": seconds["float"] / seconds["bfloat"],
        "bfloat16 weights, largest change of a probability's mean area in points": float(moved.max()),
    }


def _mean_areas(tables: Tables) -> Any:
    """Return the mean area under the probability curve of each test, in percent."""
    return np.array([areas(np.array(t["probability"].to_pylist()), STEPS).mean() for t in tables[SAMPLES]])


def _compare_sample_counts(model: CLIPMapperVQA, load: Load) -> dict[str, float]:
    """Compare time and memory of many samples with those of few; each batch is written as soon as it is recorded."""
    recorder = CurveRecorder(model, ONE, load.engine_batch)
    _record_samples(recorder, load.few)
    few, many = (_time_and_memory(recorder, count) for count in (load.few, load.many))
    label = f"{load.many} samples against {load.few}:"
    return {
        f"{label} seconds a sample, times": many[0] / load.many / (few[0] / load.few),
        f"{label} further peak memory in MiB": (many[1] - few[1]) / 2**20,
    }


def _time_and_memory(recorder: CurveRecorder, samples: int) -> tuple[float, int]:
    start = time.perf_counter()
    memory = peak_memory(lambda: _record_samples(recorder, samples), device_of(recorder.model))
    return time.perf_counter() - start, memory


def _record_samples(recorder: CurveRecorder, samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sizes: Sequence[int] = [len(part) for part in np.array_split(np.arange(samples), -(-samples // 32))]
        for number, count in enumerate(sizes):
            write_part(Path(folder), number, recorder.record(questions_of(recorder.model, count)))
