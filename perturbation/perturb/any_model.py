"""The perturbation tests of any model (docs/method.md, Perturbation tests)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from clipmapper.any_model.explainers import usable
from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.any_model.samples import Sample, load_samples
from clipmapper.any_model.words import count_words
from clipmapper.data.records import ImageSource
from clipmapper.explaining.familiarity import WordCount
from clipmapper.training.batches import even_batches
from clipmapper.training.identity import digest
from explain import Explainer
from perturbation.config import CONTROLS, PerturbModelConfig
from perturbation.measures.base import Measure
from perturbation.pairs.explaining import Chosen
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import check_parts, first_pair, read_pairs
from perturbation.pairs.scorers.choose import scorer_of
from perturbation.pairs.tests import PairTests
from perturbation.perturb.candidates import Candidate
from perturbation.perturb.identity import IMAGES, digest_of_images
from perturbation.perturb.parts import Tables
from perturbation.perturb.samples import sample_rows, split_of


@dataclass(frozen=True, eq=False)
class ModelTests:
    """The perturbation tests of any model; implements ``ExplanationTests``.

    ``batches`` are rows of ``samples``. There are no prepared data.
    """

    unit = "samples"

    loaded: LoadedModel
    samples: Sequence[Sample]
    batches: Sequence[Sequence[int]]
    tests: PairTests
    on_bad_image: str  #: ``skip`` leaves samples whose image cannot be read out
    cache: Path  #: the folder ``paths.cache``

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.loaded.model

    @property
    def name(self) -> str:
        """The model, with its size."""
        return self.loaded.name

    @property
    def explainers(self) -> Iterable[Explainer]:
        """The explainers that can explain the model, without the controls."""
        return self.tests.chosen.traced.values()

    @property
    def content(self) -> Mapping[str, str]:
        """Hashes of the model, of the tested samples with people's answers, and of their images."""
        return {
            "checkpoint": self.loaded.fingerprint(),
            "samples": digest([s.id, s.image is not None, s.text, s.answers] for s in self._tested),
            IMAGES: digest_of_images(self.images, self.cache),
        }

    @property
    def images(self) -> list[ImageSource]:
        """The images of the tested samples."""
        return [sample.image for sample in self._tested if sample.image is not None]

    @property
    def _tested(self) -> list[Sample]:
        return [self.samples[row] for rows in self.batches for row in rows]

    @property
    def about(self) -> str:
        """The number of tested samples, the values and the explainers, as text for the user."""
        reader = self.tests.reader
        values = f"accuracy, {reader.scorer.value}" if reader.correct else reader.scorer.value
        if reader.scorer.answers and not reader.correct:
            values += " (no accuracy: not all samples have answers)"
        count = f"{sum(map(len, self.batches))} of {len(self.samples)} samples; values: {values}"
        words = "" if self._words is None else f"\n{self._words}"
        return f"{count}; explainers: {', '.join(self.tests.chosen.names)}{words}"

    @property
    def entries(self) -> Mapping[str, Any]:
        """The entry ``question_words``: how many words of the texts the model does not know; null if not known."""
        return {"question_words": None if self._words is None else self._words.entry()}

    @cached_property
    def _words(self) -> WordCount | None:
        return count_words(self.loaded, [self.samples[row].text for rows in self.batches for row in rows])

    def prepare(self, run: Path) -> None:
        """Return None: batches share no data."""

    def record(self, number: int, prepared: None) -> Tables:
        """Return the records of a batch; none if no image of it is readable."""
        pairs = list(read_pairs((self.samples[row] for row in self.batches[number]), self.on_bad_image))
        return self.tests.record(pairs, sum(map(len, self.batches[:number]))) if pairs else {}


def build_tests(
    config: PerturbModelConfig, candidates: Sequence[Candidate], measures: Mapping[str, Measure]
) -> ModelTests:
    """Load the model, draw the samples to test, and return their tests.

    Raises:
        UserError: The model or the data cannot be loaded, there are fewer samples than ``config.samples``, or no
            explainer can explain the model.
    """
    loaded = load_model(config)
    return tests_of(loaded, load_samples(config.data, split_of(config), loaded.dual), config, candidates, measures)


def tests_of(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    config: PerturbModelConfig,
    candidates: Sequence[Candidate],
    measures: Mapping[str, Measure],
) -> ModelTests:
    """Draw the samples to test from all samples of a loaded model; the errors are those of :func:`build_tests`."""
    check_parts(samples)
    rows = sample_rows(len(samples), config.samples, config.seed, "samples")
    scorer = scorer_of(loaded.model, loaded.processor, loaded.max_new_tokens)
    known = all(samples[row].answers is not None for row in rows)
    reader = PairReader(scorer, config.removal.image, config.removal.text, config.batch_size, known)  # type: ignore[arg-type]
    named = {each.name.name: each.explainer for each in candidates}
    first = first_pair((samples[row] for row in rows), config.data.on_bad_image)
    traced = usable({n: each for n, each in named.items() if n not in CONTROLS}, loaded, first.image, first.text)
    controls = [name for name in named if name in CONTROLS]
    chosen = Chosen(traced, {}, controls, config.random_seeds, loaded.layers, loaded.max_new_tokens)
    tests = PairTests(loaded.model, loaded.processor, reader, chosen, measures, config.seed)
    batches = even_batches(rows, config.batch_samples)
    return ModelTests(loaded, samples, batches, tests, config.data.on_bad_image, Path(config.paths.cache))
