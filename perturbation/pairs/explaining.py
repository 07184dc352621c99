"""The scores of a pair's cells and words, by explainers of this project or by a user's own functions and arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from clipmapper.errors import UserError
from explain import Explainer
from explain.adapters.watching import Layers
from explain.sample.chosen import chosen_explainers
from explain.sample.entry import explain
from explain.sample.result import Explained
from explain.sample.traced import MOST_TOKENS, Goal
from explain.sample.words import spans_of
from perturbation.arrays import Array
from perturbation.config import CONTROLS
from perturbation.measures.base import ExplainedBatch, ScoredBy, TokenScores
from perturbation.pairs.samples import Pair
from perturbation.pairs.units import Units, cells, words_of
from perturbation.removal.order import random_numbers
from perturbation.removal.reader import Modality

Given = tuple[ArrayLike | None, ArrayLike | None]  #: scores of cells [rows, cols] and of words [W]; None without
Own = Callable[[Any, Any], Given] | Sequence[Given]  #: a function (image, text) → scores, or the scores of each sample
MODALITIES: tuple[Modality, Modality] = ("image", "text")


@dataclass(frozen=True, eq=False)
class Chosen:
    """The explainers under test, by name, and how they read the model."""

    traced: Mapping[str, Explainer]  #: those that read a trace of the model
    own: Mapping[str, Own]
    controls: Sequence[str]  #: names of ``CONTROLS``
    random_seeds: int  #: number of random orders
    layers: Layers = None  #: the layers that are traced
    max_new_tokens: int = MOST_TOKENS  #: most tokens of a generated answer

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        return [*self.traced, *self.own, *self.controls]


def choose(
    explainers: Any,
    controls: Sequence[str],
    random_seeds: int,
    function: bool,
    layers: Layers = None,
    max_new_tokens: int = MOST_TOKENS,
) -> Chosen:
    """Return the explainers that a user gave, as names, explainers, or a mapping whose values may be the user's own.

    Args:
        explainers: What the user gave.
        controls: Names of ``CONTROLS``.
        random_seeds: Number of random orders.
        function: Whether the model is a function, which has no trace.
        layers: The layers that are traced.
        max_new_tokens: Most tokens of a generated answer.

    Raises:
        UserError: An explainer is unknown or cannot explain this model, or a control is unknown.
    """
    given = explainers if isinstance(explainers, Mapping) else None
    own = {name: each for name, each in (given or {}).items() if not isinstance(each, str | Explainer)}
    rest: Any = explainers
    if given is not None:
        rest = {name: each for name, each in given.items() if name not in own}
    elif isinstance(explainers, str):
        rest = [explainers]
    if unknown := [name for name in controls if name not in CONTROLS]:
        raise UserError(f"controls: {unknown[0]} is not one of: {', '.join(CONTROLS)}")
    if function and rest:
        raise UserError(f"explainer {next(iter(rest))} reads a trace, which a function has not: give your own scores")
    try:
        traced = chosen_explainers(rest) if rest else {}
    except ValueError as error:
        raise UserError(str(error)) from error
    chosen = Chosen(traced, own, list(dict.fromkeys(controls)), random_seeds, layers, max_new_tokens)
    if not chosen.traced and not chosen.own:
        raise UserError("explainers: name at least one, such as weighted")
    if len(set(chosen.names)) < len(chosen.names):
        raise UserError(f"explainers: two have the same name, among {', '.join(chosen.names)}")
    return chosen


def explained_pairs(
    model: Any,
    processor: Any,
    pairs: Sequence[Pair],
    chosen: Chosen,
    start: int,
    seed: int,
    goals: Sequence[Goal] | None = None,
) -> tuple[ExplainedBatch, list[Units]]:
    """Score the cells and words of a batch of pairs by every explainer, all from one trace of each pair.

    Args:
        model: The model.
        processor: Its processor.
        pairs: B pairs.
        chosen: The explainers.
        start: Number of pairs in the batches before this one.
        seed: Seed of random scores and of the order of equal scores.
        goals: What is explained of each pair; None for the model's own answers.

    Raises:
        UserError: A pair cannot be explained, or scores have the wrong shape.
    """
    goals = [None] * len(pairs) if goals is None else goals
    rows = [_explained(model, processor, pair, chosen, seed, goal) for pair, goal in zip(pairs, goals, strict=True)]
    tokens: dict[Modality, TokenScores] = {}
    for modality in MODALITIES:
        found = [row.scores[modality] for row in rows]
        longest = max(len(next(iter(each.values()), ())) for each in found)
        names = list(dict.fromkeys(name for each in found for name in each))
        if not longest or not names:
            continue
        counts = np.array([len(next(iter(each.values()), ())) for each in found])
        table = {name: np.zeros((len(rows), longest)) for name in names}
        for b, each in enumerate(found):
            for name, values in each.items():
                table[name][b, : len(values)] = values
        tokens[modality] = TokenScores(np.arange(longest) < counts[:, None], table)
    batch = ExplainedBatch("sample", [pair.id for pair in pairs], "answers", tokens, start, seed)
    return batch, [row.units for row in rows]


@dataclass(frozen=True, eq=False)
class _Row:
    """The removable parts of one pair, and the scores of its cells and words."""

    units: Units
    scores: Mapping[Modality, Mapping[ScoredBy, Array]]


def _explained(model: Any, processor: Any, pair: Pair, chosen: Chosen, seed: int, goal: Goal) -> _Row:
    scores: dict[Modality, dict[ScoredBy, Array]] = {"image": {}, "text": {}}
    own = {name: _own_scores(name, each, pair) for name, each in chosen.own.items()}
    units = _units_of_own(pair, own)
    if chosen.traced:
        drawn = {name: _with_own_draws(each, f"{seed}/{pair.id}") for name, each in chosen.traced.items()}
        try:
            options: dict[str, Any] = {"layers": chosen.layers, "max_new_tokens": chosen.max_new_tokens}
            found = explain(model, processor, pair.image, pair.text, explainer=drawn, target=goal, **options)
        except ValueError as error:
            raise UserError(f"sample {pair.id}: {error}") from error
        units = units_of(pair, found)
        for name, explainer in chosen.traced.items():
            by = ScoredBy(name, control=explainer.control)
            if pair.image is not None and "image" in explainer.modalities:
                scores["image"][by] = found.scores[name].images[0].ravel()
            if pair.text is not None and "text" in explainer.modalities:
                scores["text"][by] = found.scores[name].words
    for name, (image, words) in own.items():
        if image is not None:
            scores["image"][ScoredBy(name)] = _checked(name, pair, "image", image, units.grid).ravel()
        if words is not None:
            scores["text"][ScoredBy(name)] = _checked(name, pair, "text", words, (len(units.words),))
    for name in chosen.controls:
        for modality, of_control in _control_scores(name, pair, units, chosen.random_seeds, seed).items():
            scores[modality] |= of_control
    return _Row(units, scores)


def _with_own_draws(explainer: Explainer, name: str) -> Explainer:
    """Return an explainer that draws other numbers for every name, if it draws at random."""
    return explainer.with_seed(crc32(f"{explainer.seed}/{name}".encode())) if explainer.seeded else explainer


def units_of(pair: Pair, found: Explained) -> Units:
    """Return the parts that an explanation scores: the cells of its map, and its words."""
    grid = (0, 0) if pair.image is None else found.image.shape
    boxes = cells(grid, (0, 0, 0, 0) if pair.image is None else found.sample.seen[0])
    text = pair.text if found.sample.read is None else found.sample.read
    words = [] if text is None else spans_of(text, [word for word, _ in found.words])
    return Units((grid[0], grid[1]), boxes, words, text)


def _units_of_own(pair: Pair, own: Mapping[str, tuple[Array | None, Array | None]]) -> Units:
    """Return the parts that a user's own scores are about: the cells of the first map, and all words."""
    grid = next((image.shape for image, _ in own.values() if image is not None), (0, 0))
    if len(grid) != 2:
        raise UserError(f"sample {pair.id}: scores of cells have the shape {list(grid)}; give [rows, cols]")
    seen = (0, 0, 0, 0) if pair.image is None else (0, 0, *pair.image.size)
    return Units((grid[0], grid[1]), cells(grid, seen), [] if pair.text is None else words_of(pair.text), pair.text)


def _own_scores(name: str, own: Own, pair: Pair) -> tuple[Array | None, Array | None]:
    given = own(pair.image, pair.text) if callable(own) else own[pair.id]
    if not isinstance(given, tuple) or len(given) != 2:
        raise UserError(f"explainer {name}: give a pair (scores of cells [rows, cols] or None, of words or None)")
    image, words = (None if each is None else np.asarray(each, dtype=np.float64) for each in given)
    return (None if pair.image is None else image), (None if pair.text is None else words)


def _checked(name: str, pair: Pair, modality: str, values: Array, shape: tuple[int, ...]) -> Array:
    if values.shape != shape:
        raise UserError(
            f"explainer {name}, sample {pair.id}: {modality} scores have the shape {list(values.shape)}, but the parts "
            f"that are removed {list(shape)}"
        )
    return values


def _control_scores(
    name: str, pair: Pair, units: Units, random_seeds: int, seed: int
) -> dict[Modality, dict[ScoredBy, Array]]:
    """Return the scores of a control, by the modality that it orders."""
    counts: dict[Modality, int] = {"image": len(units.boxes), "text": len(units.words)}
    if name == "random":
        return {
            modality: {
                ScoredBy(name, k, True): random_numbers([f"{seed + k}/{pair.id}/{modality}"], count)[0]
                for k in range(random_seeds)
            }
            for modality, count in counts.items()
            if count
        }
    if name == "centre_first":
        rows, cols = (np.arange(size) - (size - 1) / 2 for size in units.grid)
        distance = np.hypot(*np.meshgrid(rows / max(len(rows), 1), cols / max(len(cols), 1), indexing="ij"))
        return {"image": {ScoredBy(name, control=True): -distance.ravel()}} if counts["image"] else {}
    order = np.arange(counts["text"], dtype=np.float64)
    scores = -order if name == "first_to_last" else order
    return {"text": {ScoredBy(name, control=True): scores}} if counts["text"] else {}
