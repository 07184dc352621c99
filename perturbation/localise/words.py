"""How much of a caption word's explanation lies on the objects that the word names, by kind of word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perturbation.arrays import Array
from perturbation.localise.metrics import METRICS, Mask, Scores, chance
from perturbation.localise.tables import CHANCE, localisation_rows

RANDOM = "random"
ALL = "all"


def word_localisation_rows(
    relevance: Mapping[str, Scores],
    evidence: Mask,
    kinds: Sequence[str],
    captions: Sequence[int],
    mapper: str,
    seed: int,
) -> dict[str, Any]:
    """``rows``, one an explainer, kind of word and metric, and ``left_out``: words whose objects fill no patch.

    A caption's words are not independent, so a caption is one sample: the mean over its words of a kind. Means and 95 %
    bootstrap intervals are over captions, as ``localisation_tables.localisation_rows`` makes them. Two more explainers
    say what chance gives: ``chance``, the share of the patches that are evidence, and ``random``, uniform scores.

    Args:
        relevance: [M, P] by explainer, of each of M words over all P patches, any scale and sign.
        evidence: bool [M, P], the patches that show the objects a word names.
        kinds: [M], what a word says of them; ``all`` is added for all words together.
        captions: [M], the caption a word belongs to: any key.
        mapper: name of the mapper, for the rows.
        seed: of the bootstrap and of the random scores.

    Returns:
        ``rows`` with explainer, mapper, modality (image), kind, metric, value, ci95, above_chance, above_chance_ci95,
        samples (captions) and words; ``left_out``, a number.

    Raises:
        UserError, ValueError: as ``perturbation.localise.metrics.mass_accuracy``; ValueError where counts differ, there
            is no word, or an explainer is called as one of the two that are added.
    """
    if taken := {RANDOM, CHANCE} & relevance.keys():
        raise ValueError(f"{taken.pop()} is added here: give the explainer another name")
    if not len(kinds) == len(captions) == len(evidence) > 0:
        raise ValueError(f"{len(evidence)} words of evidence, {len(kinds)} kinds and {len(captions)} captions differ")
    scores = {**relevance, RANDOM: np.random.default_rng([seed, 1]).random(evidence.shape)}
    eligible = np.ones_like(evidence)
    values = {
        name: np.stack([of(each, eligible, evidence) for of in METRICS.values()], 1) for name, each in scores.items()
    }
    values[CHANCE] = np.stack([chance(eligible, evidence)] * len(METRICS), 1)
    known = evidence.any(1)
    rows: list[dict[str, Any]] = []
    for kind in (ALL, *sorted(set(kinds))):
        chosen = known & np.array([kind in (ALL, each) for each in kinds])
        if chosen.any():
            rows += _rows(values, chosen, kind, np.asarray(captions), mapper, seed)
    return {"rows": rows, "left_out": int((~known).sum())}


def _rows(
    values: Mapping[str, Array], chosen: Mask, kind: str, captions: NDArray[np.int64], mapper: str, seed: int
) -> list[dict[str, Any]]:
    """The rows of the chosen words, all of which have values."""
    _, place = np.unique(captions[chosen], return_inverse=True)
    means = {name: _means(table[chosen], place) for name, table in values.items()}
    samples = len(means[CHANCE])
    rows = localisation_rows({"image": means}, [kind] * samples, mapper, seed)["by_kind"]
    return [{**row, "words": int(chosen.sum())} for row in rows]


def _means(table: Array, place: NDArray[np.intp]) -> Array:
    """The mean of the rows of each place: [words, metrics] → [captions, metrics]."""
    sums = np.zeros((place.max() + 1, table.shape[1]))
    np.add.at(sums, place, table)
    return sums / np.bincount(place)[:, None]
