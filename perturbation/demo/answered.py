"""An answered question with its explanations, and the model's answers without some patches and words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import DoubtfulInput
from explain import Explainer
from explain.sample.entry import explain
from explain.sample.result import Explained
from explain.sample.scores import Scores
from perturbation.arrays import Array, Mask
from perturbation.demo.offered import Loaded
from perturbation.pairs.explaining import units_of
from perturbation.pairs.reader import ReadPairs
from perturbation.pairs.samples import Pair
from perturbation.pairs.units import Units
from perturbation.removal.order import draw_ties, kept_masks, random_numbers
from perturbation.removal.reader import Modality, Subsets

STEPS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # removed shares of the patches or words
MOST_CHARACTERS = 1000  # of a question
RANDOM = "random"  # the order that every explainer is compared with
MODALITIES: tuple[Modality, Modality] = ("image", "text")


@dataclass(frozen=True)
class Said:
    """What a model answers to a picture and a text."""

    text: str  #: empty for a dual encoder
    value: float  #: the value of the answer to the complete question, such as its probability


@dataclass(frozen=True, eq=False)
class Step:
    """What is left of a picture or a text when a share of it is removed, and what the model answers."""

    share: float
    kept: Mask  #: of the cells or words
    said: Said


@dataclass(frozen=True, eq=False)
class Strip:
    """The steps of one explainer, from nothing to everything removed."""

    explainer: str
    steps: Sequence[Step]


@dataclass(frozen=True, eq=False)
class Answered:
    """A question that a model has answered; its trace is not kept."""

    loaded: Loaded
    image: Image.Image
    units: Units
    scores: Mapping[str, Scores]  #: by explainer
    scored: Mapping[str, Sequence[str]]  #: the modalities that each explainer scores
    samples: ReadPairs  #: the reader's, which remembers what it has read
    asked: Any  #: what is asked about the complete question, such as the answer whose probability is read

    @property
    def value(self) -> str:
        """Name of the values: ``probability`` or ``similarity``."""
        return self.loaded.reader.scorer.value

    def counts(self, modality: Modality) -> int:
        """Return the number of cells or words."""
        return len(self.units.boxes if modality == "image" else self.units.words)

    def without(self, cells: frozenset[int], words: frozenset[int]) -> Said:
        """Return what the model says without some cells and words."""
        kept = [np.ones((1, self.counts(modality)), np.bool_) for modality in MODALITIES]
        for mask, removed in zip(kept, (cells, words), strict=True):
            mask[0, sorted(removed)] = False
        return self._read(Subsets(*(mask[None] for mask in kept)))[0]

    def picture(self, kept: Mask) -> Image.Image:
        """Return the picture without the other cells, as the model reads it."""
        filler = self.samples.fillers[0]
        return self.image if filler is None or kept.all() else filler.image_without(kept)

    def strips(self, modality: Modality, seed: int) -> list[Strip]:
        """Return what the model says while cells or words are removed, the most relevant first, and at random.

        Args:
            modality: What is removed.
            seed: Seed of the random order, and of the order of equal scores.
        """
        count = self.counts(modality)
        if not count:
            return []
        ties = draw_ties(seed, [0], modality, count)
        scores = {name: self._scores(name, modality) for name, scored in self.scored.items() if modality in scored}
        scores |= {RANDOM: random_numbers([f"{seed}/0/{modality}"], count)[0]}
        every = np.ones((1, count), np.bool_)
        kept = [kept_masks(each[None], every, STEPS, "positive", ties)[0] for each in scores.values()]
        said = self._read(Subsets.only(modality, np.concatenate(kept)[None]))
        rows = [said[k : k + len(STEPS)] for k in range(0, len(said), len(STEPS))]
        return [
            Strip(name, [Step(*each) for each in zip(STEPS, masks, row, strict=True)])
            for name, masks, row in zip(scores, kept, rows, strict=True)
        ]

    def _scores(self, name: str, modality: Modality) -> Array:
        return self.scores[name].images[0].ravel() if modality == "image" else self.scores[name].words

    def _read(self, subsets: Subsets) -> list[Said]:
        found = self.loaded.reader.read(self.samples, subsets, [self.asked])
        return [Said(text, float(value)) for text, value in zip(found.said[0], found.responses[0], strict=True)]


def ask(
    loaded: Loaded, explainers: Mapping[str, Explainer], image: Image.Image, text: str, seed: int
) -> tuple[Explained, Answered, list[str]]:
    """Ask a model a question about a picture, and explain its answer.

    Args:
        loaded: The model.
        explainers: At least one, by name.
        image: The picture.
        text: The question; a model of images alone gets none.
        seed: Seed of random draws.

    Returns:
        The explanation, what is needed to remove parts, and warnings about the input, one line each.

    Raises:
        UserError: There is no question or no explainer, or the question is too long.
        ValueError: The model refuses the input, or an explainer cannot explain the model.
    """
    if not explainers:
        raise UserError("choose at least one explainer")
    question = _checked(text) if loaded.reads_text else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = explain(loaded.model, loaded.processor, image, question, explainer=dict(explainers))
    doubts = [str(each.message) for each in caught if issubclass(each.category, DoubtfulInput)]
    pair = Pair(0, found.sample.photos[0], question, answers=(found.answer.text,))
    units, reader = units_of(pair, found), loaded.reader
    [asked] = reader.ask([pair])
    scored = {name: sorted(each.modalities) for name, each in explainers.items()}
    samples = reader.samples([pair], [units], seed)
    answered = Answered(loaded, found.sample.photos[0], units, found.scores, scored, samples, asked)
    return found, answered, [*doubts, *([loaded.unknown] if loaded.unknown else [])]


def _checked(text: str) -> str:
    if not text.strip():
        raise UserError("the question is empty: write one, or choose one of the scene")
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"the question has {len(text):,} characters: shorten it to at most {MOST_CHARACTERS:,}")
    return text
