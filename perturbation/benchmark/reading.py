"""The benchmark of :func:`perturbation.test`: how any model reads pairs whose cells or words are removed.

It compares batches with one pair at a time, the same subsets asked for twice, a dual encoder with and without what it
keeps of complete images and texts, and the curves of images with region perturbation
(:mod:`perturbation.benchmark.region_loop`). The scores of explainers are random numbers: explaining is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch

from clipmapper.benchmarks.timing import side_by_side
from perturbation.arrays import Array
from perturbation.benchmark.pair_models import PHOTO, TEXT, photos_with_text, tiny_clip, tiny_llava
from perturbation.benchmark.region_loop import region_loop
from perturbation.measures.areas import Areas
from perturbation.measures.base import ExplainedBatch, ScoredBy, TokenScores
from perturbation.pairs.reader import PairReader
from perturbation.pairs.scorers.choose import scorer_of
from perturbation.pairs.units import Units, cells, words_of
from perturbation.perturb.parts import Tables
from perturbation.perturb.records import record_batch
from perturbation.removal.order import Direction
from perturbation.removal.reader import Modality

GRID, EXPLAINERS, BATCH = (6, 6), ("one", "other"), 32
REGIONS = 9  # steps of region perturbation, as many as those of Huang et al. 2023


@dataclass(frozen=True)
class Load:
    """The amount of work to measure."""

    samples: int
    rounds: int


LOAD = Load(samples=2, rounds=3)


def reading(load: Load | None = None, device: torch.device | str = "cpu") -> dict[str, float]:
    """Measure how a tiny language model that reads images and a tiny dual encoder read pairs; return ratios by name.

    Raises:
        UserError: ``transformers`` is not installed.
    """
    load = load or LOAD
    dual = tiny_clip(device)
    figures = _batches("LLaVA", Curves(*tiny_llava(device), load.samples), load.rounds)
    figures |= _batches("CLIP", Curves(*dual, load.samples), load.rounds)
    return figures | _keeping(*dual, load) | _regions(*dual, load)


class Curves:
    """The curves of two explainers with random scores, in both directions.

    Args:
        model: A model of ``transformers``.
        processor: Its processor.
        samples: Number of photos.
        steps: The removed fractions.
        modalities: The modalities under test.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        samples: int,
        steps: str | Sequence[float] = "paper",
        modalities: Sequence[Modality] = get_args(Modality),
    ) -> None:
        self.scorer, self.pairs = scorer_of(model, processor), photos_with_text(samples)
        self.asked, self.measure = self.scorer.ask(self.pairs), Areas(steps, get_args(Direction), {})
        units = Units(GRID, cells(GRID, (0, 0, PHOTO, PHOTO)), words_of(TEXT), TEXT)
        self.units = [units] * samples
        draw, counts = np.random.default_rng(0), {"image": len(units.boxes), "text": len(units.words)}
        self.scores: dict[Modality, dict[str, Array]] = {
            modality: {name: draw.random((samples, counts[modality])) for name in EXPLAINERS} for modality in modalities
        }

    def reading(self, batch_size: int = BATCH, keep: bool = True) -> Callable[[], Tables]:
        """Return a function that returns the records, and reads only what no earlier call of it has read.

        Args:
            batch_size: Number of pairs that are read together.
            keep: Whether the scorer keeps what it computes of complete images and texts.
        """
        tokens = {
            modality: TokenScores(
                np.ones_like(next(iter(scores.values())), dtype=np.bool_),
                {ScoredBy(name): each for name, each in scores.items()},
            )
            for modality, scores in self.scores.items()
        }
        explained = ExplainedBatch("sample", [pair.id for pair in self.pairs], "answers", tokens)
        reader = PairReader(self.scorer, "mean", "drop", batch_size, correct=False)
        samples = reader.samples(self.pairs, self.units, 0)
        if not keep:
            self.scorer.keep([])
        return partial(record_batch, {"areas": self.measure}, explained, reader, samples, self.asked)

    def read(self, batch_size: int = BATCH, keep: bool = True) -> Tables:
        """Read everything and return the records; the arguments are those of :meth:`reading`."""
        return self.reading(batch_size, keep)()


def _batches(name: str, curves: Curves, rounds: int) -> dict[str, float]:
    """Compare batches with whole pairs that are read one at a time, and with subsets that were read before."""
    again = curves.reading()
    again()
    alone = partial(curves.read, batch_size=1, keep=False)
    seconds = side_by_side({"batches": curves.read, "alone": alone, "again": again}, rounds)
    return {
        f"tiny {name}: pairs a second, times those of one pair at a time": seconds["alone"] / seconds["batches"],
        f"tiny {name}: the same subsets again, share of the first time": seconds["again"] / seconds["batches"],
    }


def _keeping(model: Any, processor: Any, load: Load) -> dict[str, float]:
    """Compare a dual encoder that keeps complete images and texts with one that encodes them again in each batch."""
    figures = {}
    parts: list[tuple[Modality, str, str]] = [("image", "cells", "text"), ("text", "words", "image")]
    for modality, removed, whole in parts:
        curves = Curves(model, processor, load.samples, modalities=[modality])
        seconds = side_by_side({"kept": curves.read, "again": partial(curves.read, keep=False)}, load.rounds)
        name = f"tiny CLIP, {removed} removed: pairs a second, times those without keeping the {whole}"
        figures[name] = seconds["again"] / seconds["kept"]
    return figures


def _regions(model: Any, processor: Any, load: Load) -> dict[str, float]:
    """Compare the curves of images with region perturbation of as many steps, which each remove one more cell."""
    steps = [step / (GRID[0] * GRID[1]) for step in range(REGIONS)]
    curves = Curves(model, processor, load.samples, steps, ["image"])
    loop = partial(region_loop, model, processor, curves.pairs, curves.scores["image"], GRID, REGIONS)
    seconds = side_by_side({"curves": curves.read, "loop": loop}, load.rounds)
    return {"tiny CLIP: steps a second, times those of region perturbation": seconds["loop"] / seconds["curves"]}
