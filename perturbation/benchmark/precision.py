"""What the precision of a model's products and weights changes: its answers, the ranks of its maps, and the areas.

A shipped model answers questions of the test split in float32, and in each other precision. On a CPU, TF32 is
simulated: the inputs of every product are rounded to TF32's 10 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clipmapper.choice import SHIPPED
from clipmapper.config.schema import Config
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA, load_trained
from clipmapper.training.batches import even_batches
from explain import Explainer
from explain.targets import given
from perturbation.arrays import Array
from perturbation.benchmark.perturbing import PAPER, STEPS, candidates, read_curves
from perturbation.measures.base import SAMPLES
from perturbation.perturb.samples import sample_rows
from perturbation.perturb.vqa import explained_questions
from perturbation.removal.engine import Engine, VQAReader
from perturbation.report.curves import areas

QUESTIONS, BATCH = 300, 50
READ_TOGETHER = {"cpu": 32, "cuda": 1024}  # subsets of tokens, by device
VALUES = {"probability": "probability", "correct": "accuracy"}  # columns of the records, and what they are called
PRODUCTS = {getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "baddbmm", "convolution")}


@dataclass(frozen=True)
class Outcome:
    """What a model gives for all questions."""

    answers: list[str]
    accuracy: Array  #: official accuracy of each question, 0..1
    maps: Mapping[tuple[str, str], list[Array]]  #: scores of the removable tokens, by explainer and modality
    areas: Mapping[tuple[Any, ...], float]  #: mean areas, 0 to 100, by test and value


@dataclass(frozen=True)
class Way:
    """A model, the dtype of its images, and the context in which it runs."""

    model: CLIPMapperVQA
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    dtype: torch.dtype = torch.float32


def precision(config: Config, device: torch.device) -> dict[str, float]:
    """Return what each precision changes, by name: shares (0..1), rank correlations, and points of areas.

    Args:
        config: The benchmark's config, whose data and mapper are used.
        device: Device of the model.

    Raises:
        UserError: No model of the mapper is shipped for the data, or the data can't be read.
    """
    trained = load_trained(config, "test", SHIPPED)
    rows = sample_rows(len(trained.questions), QUESTIONS, config.seed)
    exact = _outcome(trained, rows, Way(trained.model))
    figures: dict[str, float] = {}
    for name, way in _ways(trained.model, device).items():
        found = _outcome(trained, rows, way)
        figures |= {f"mapper {config.mapper.name}, {name}: {key}": v for key, v in _changes(exact, found).items()}
    return figures


def _ways(model: CLIPMapperVQA, device: torch.device) -> dict[str, Way]:
    half = torch.bfloat16
    on_gpu = device.type == "cuda"
    mixed = {name: deepcopy(model) for name in ("bfloat16", "float16")}
    for name, each in mixed.items():
        each.encoder.use_precision(name)
    return {
        "TF32" if on_gpu else "TF32 (simulated)": Way(model, _tf32 if on_gpu else RoundedProducts),
        **{f"encoder.precision={name}": Way(each) for name, each in mixed.items()},
        "all in bf16-mixed": Way(model, lambda: torch.autocast(device.type, half)),
        "bfloat16 weights": Way(deepcopy(model).to(half), dtype=half),
    }


@contextmanager
def _tf32() -> Iterator[None]:
    earlier = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(earlier[0])
        torch.backends.cudnn.allow_tf32 = earlier[1]


class RoundedProducts(TorchDispatchMode):
    """Context in which the inputs of matrix products are rounded to the 10 bits that TF32 keeps of a fraction."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        if func._overloadpacket in PRODUCTS:
            args = [_to_tf32(each) if isinstance(each, Tensor) else each for each in args]
        return func(*args, **(kwargs or {}))


def _to_tf32(x: Tensor) -> Tensor:
    """Round float32 values to the nearest value whose fraction has 10 bits instead of 23."""
    if x.dtype != torch.float32:
        return x
    bits = x.detach().contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def _outcome(trained: TrainedVQA, rows: Sequence[int], way: Way) -> Outcome:
    answers: list[str] = []
    maps: dict[tuple[str, str], list[Array]] = {}
    curves: dict[tuple[Any, ...], list[Array]] = {}
    chosen = candidates(dict[str, Explainer](PAPER))
    for part in even_batches(rows, BATCH):
        batch = trained.batch(part)
        assert batch is not None  # generated images can be read
        batch = _as(batch, way.dtype)
        with way.context():
            reader = VQAReader(Engine(way.model, READ_TOGETHER[batch.pixels.device.type]))
            samples = reader.samples(batch)
            answers += [way.model.answers[k] for k in samples.inputs.answers.tolist()]
            explained = explained_questions(way.model, batch, chosen, given(samples.inputs.answers))
            for modality, tokens in explained.tokens.items():
                for name, scores in tokens.scores.items():
                    kept = [row[there] for row, there in zip(scores, tokens.removable, strict=True)]
                    maps.setdefault((str(name), modality), []).extend(kept)
            for table in read_curves(reader, samples, explained)[SAMPLES]:
                about = tuple(table[key][0].as_py() for key in ("explainer", "modality", "direction"))
                for value in VALUES:
                    curves.setdefault((*about, value), []).append(np.array(table[value].to_pylist()))
    whole = {key: np.concatenate(each) for key, each in curves.items()}
    accuracy = next(each[:, 0] for key, each in whole.items() if key[-1] == "correct")
    return Outcome(answers, accuracy, maps, {key: float(areas(each, STEPS).mean()) for key, each in whole.items()})


def _as(batch: QuestionBatch, dtype: torch.dtype) -> QuestionBatch:
    return replace(batch, pixels=batch.pixels.to(dtype))


def _changes(exact: Outcome, found: Outcome) -> dict[str, float]:
    """Return how an outcome differs from that in float32."""
    correlations = np.array(
        [
            spearmanr(a, b).statistic
            for key in exact.maps
            for a, b in zip(exact.maps[key], found.maps[key], strict=True)
            if len(a) > 2 and np.ptp(a) and np.ptp(b)
        ]
    )
    moved = {value: [abs(found.areas[k] - exact.areas[k]) for k in exact.areas if k[-1] == value] for value in VALUES}
    return {
        "share of answers that change": float(
            np.mean([a != b for a, b in zip(exact.answers, found.answers, strict=True)])
        ),
        "change of accuracy in points": 100 * float(found.accuracy.mean() - exact.accuracy.mean()),
        "rank correlation of maps, median": float(np.median(correlations)),
        "rank correlation of maps, 1 % of them are below": float(np.quantile(correlations, 0.01)),
        **{f"largest change of a mean area of {VALUES[name]} in points": max(each) for name, each in moved.items()},
    }
