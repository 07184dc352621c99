"""What a perturbation run needs: counts, a predicted time, and the space of its parts, before it begins."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from tempfile import TemporaryDirectory
from typing import Any, cast

import pyarrow as pa
import torch

from clipmapper.console import clock, print_table
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import build_explainers, scoring
from clipmapper.features.inventory import size
from clipmapper.features.sizing import check_files
from clipmapper.features.trial import spread
from clipmapper.training.trainer import trial_trainer
from perturbation.arrays import Mask
from perturbation.config import PerturbBaseConfig, PerturbConfig
from perturbation.measures.base import ExplainedBatch, Measure, Name, Rows
from perturbation.perturb.candidates import candidates_of
from perturbation.perturb.lightning import ExplanationTests
from perturbation.perturb.measures import build_measures, measure_configs
from perturbation.perturb.parts import FOLDER, write_part
from perturbation.perturb.run import explainers_of
from perturbation.removal.reader import Read, SubsetOutputs, Subsets
from perturbation.tasks import task_of

_TRIED = 3  # batches of each kind that are timed, at most
_SECONDS = 10.0  # after which no further batch of a kind is timed
_ON_A_CPU = 1  # samples of a batch that are timed on a CPU, where more are not faster
_ENGINE_BATCH = 32  # ``engine_batch`` on a CPU, if the config does not give it


def print_costs(config: PerturbBaseConfig, choice: str, run: Path) -> None:
    """Check the model, the data and the image files; time some batches and print what the whole run needs.

    Args:
        config: The checked config.
        choice: The name of the chosen config of the group ``explainer``.
        run: The run folder, whose disk is checked; nothing is written.

    Raises:
        UserError: The config, the data or the checkpoint do not allow the tests, an image is missing, or the records
            do not fit on the disk.
    """
    explainers = scoring(build_explainers(explainers_of(config, choice)), config.tested)
    readings = Readings()
    built = build_measures(measure_configs(config))
    measures = {name: Counted(measure, readings) for name, measure in built.items()}
    trainer = trial_trainer(config.trainer, inference_mode=False)
    device = trainer.strategy.root_device
    if device.type == "cpu" and isinstance(config, PerturbConfig) and config.engine_batch is None:
        config = replace(config, engine_batch=_ENGINE_BATCH)  # to find the fastest one takes longer than the rest
    candidates = candidates_of(explainers, config.random_seeds)
    tests: ExplanationTests[Any] = task_of(config).perturb.build_tests(config, candidates, measures)
    print(f"{tests.name}\n{tests.about}", flush=True)
    check_files(tests.images, config.data.on_bad_image)
    precision = trainer.precision_plugin
    precision.convert_module(tests.model.to(device))
    sizes = [len(rows) for rows in tests.batches]
    if device.type == "cpu":
        tests = replace(cast(Any, tests), batches=[rows[:_ON_A_CPU] for rows in tests.batches])
    with TemporaryDirectory() as folder, torch.no_grad(), precision.predict_step_context():
        kinds = _kinds(sizes, config.ceiling.samples)
        some = [tests.batches[number] for numbers in kinds.values() for number in spread(numbers, _TRIED)]
        prepared = replace(cast(Any, tests), batches=some).prepare(Path(folder))
        costs = {
            name: _timed(tests, prepared, numbers, readings, Path(folder), sum(sizes[number] for number in numbers))
            for name, numbers in kinds.items()
        }
    rows = [each.row(name) for name, each in costs.items()]
    print_table(
        f"to be tested on {device.type}, in {len(sizes):,} parts",
        [tests.unit, "number", "timed", "readings", "space", "time"],
        rows,
        "Predicted from the timed batches, for one process, without the start and the figures. A reading is one pass "
        "of the model on a subset of the tokens; to explain takes one more pass, forward and backward.",
    )
    total, needed = sum(each.seconds for each in costs.values()), sum(each.bytes for each in costs.values())
    free = shutil.disk_usage(run).free
    print(f"testing: {sum(sizes):,} {tests.unit}, predicted time {clock(total)}", flush=True)
    if needed > free:
        raise UserError(f"{run}: {size(int(needed))} are needed for the parts, but {size(free)} are free")


@dataclass
class Readings:
    """Count of the subsets on which the model is run; a subset for which several measures ask counts once."""

    count: int = 0
    _asked: set[tuple[object, ...]] = field(default_factory=set)

    def add(self, batch: ExplainedBatch, subsets: Subsets) -> None:
        """Count the subsets of a batch that no measure has asked for since the last :meth:`end`."""
        before = len(self._asked)
        for sample in range(len(batch.ids)):
            for place in range(subsets.count):
                self._asked.add((sample, _key(subsets.image, sample, place), _key(subsets.text, sample, place)))
        self.count += len(self._asked) - before

    def end(self) -> None:
        """End the batch."""
        self._asked.clear()


class Counted(Measure):
    """A measure whose subsets are counted.

    Args:
        measure: The measure.
        readings: The count, which all measures share.
    """

    def __init__(self, measure: Measure, readings: Readings) -> None:
        self._measure, self._readings = measure, readings

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        """Return the measure's subsets, and count them with those that it reads immediately."""

        def counted(subsets: Subsets) -> SubsetOutputs:
            self._readings.add(batch, subsets)
            return read(subsets)

        asked = self._measure.ask(batch, counted)
        for subsets in asked.values():
            self._readings.add(batch, subsets)
        return asked

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        """Return the measure's records."""
        self._readings.end()
        return self._measure.record(batch, outputs)

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        """Return the measure's report."""
        return self._measure.report(tables, run)


def _key(mask: Mask | None, sample: int, place: int) -> bytes:
    """Return the kept tokens as bytes; empty if all are kept."""
    return b"" if mask is None or mask[sample, place].all() else mask[sample, place].tobytes()


@dataclass(frozen=True)
class Cost:
    """The predicted cost of samples of one kind."""

    samples: int
    timed: int
    readings: float  #: of one sample
    bytes: float  #: of the parts of all samples
    seconds: float  #: of all samples

    def row(self, name: str) -> list[str]:
        """Return the cells of the table."""
        counts = [name, f"{self.samples:,}", f"{self.timed:,}", f"{self.readings:,.0f} each"]
        return [*counts, size(int(self.bytes)), clock(self.seconds)]


def _kinds(sizes: Sequence[int], searched: int) -> dict[str, list[int]]:
    """Return the numbers of the batches: those in which the ceiling is searched for cost more, and the others."""
    kinds: dict[str, list[int]] = {}
    start = 0
    for number, count in enumerate(sizes):
        kinds.setdefault("searched for the ceiling" if start < searched else "tested", []).append(number)
        start += count
    return kinds


def _timed(
    tests: ExplanationTests[Any],
    prepared: Any,
    numbers: Sequence[int],
    readings: Readings,
    folder: Path,
    samples: int,
) -> Cost:
    """Record some of the batches and return the predicted cost of all of their ``samples``."""
    each: list[float] = []
    readings.count = timed = 0
    begun = time.monotonic()
    written = _bytes(folder)
    for number in spread(numbers, _TRIED):
        before = time.monotonic()
        write_part(folder, number, tests.record(number, prepared))
        each.append((time.monotonic() - before) / len(tests.batches[number]))
        timed += len(tests.batches[number])
        if time.monotonic() - begun > _SECONDS:
            break
    space = (_bytes(folder) - written) / timed * samples
    return Cost(samples, timed, readings.count / timed, space, median_low(each) * samples)


def _bytes(folder: Path) -> int:
    """Return the bytes of the parts in a run folder."""
    return sum(file.stat().st_size for file in (folder / FOLDER).glob("*"))
