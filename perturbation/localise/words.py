"""Tables of how much of a word's explanation is on the objects that the word names, by kind of word."""

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


def word_values(relevance: Mapping[str, Scores], evidence: Mask, seed: int) -> dict[str, Array]:
    """Return the metrics of each word, [M, metrics] by explainer; NaN if the word's objects fill no patch.

    Two explainers are added as a reference for chance: ``random``, uniform random scores, and ``chance``, the share of
    the patches that are evidence.

    Args:
        relevance: [M, P] by explainer: the relevance of P patches for each of M words, any scale and sign.
        evidence: bool [M, P]: the patches that show the objects a word names.
        seed: Seed of the random scores.

    Raises:
        UserError: A score is NaN or infinite.
        ValueError: The numbers of words differ, or an explainer has the name of an added one.
    """
    if taken := {RANDOM, CHANCE} & relevance.keys():
        raise ValueError(f"the explainer {taken.pop()} is added by this function: give yours another name")
    scores = {**relevance, RANDOM: np.random.default_rng([seed, 1]).random(evidence.shape)}
    eligible = np.ones_like(evidence)
    values = {
        name: np.stack([of(each, eligible, evidence) for of in METRICS.values()], 1) for name, each in scores.items()
    }
    return {**values, CHANCE: np.stack([chance(eligible, evidence)] * len(METRICS), 1)}


def word_localisation_rows(
    values: Mapping[str, Array], kinds: Sequence[str], captions: Sequence[int], about: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Return the rows of the table, one per explainer, kind of word and metric.

    The words of a caption are not independent, so one caption is one sample: the mean over its words of a kind. Means
    and 95 % bootstrap intervals are over captions (:func:`perturbation.localise.tables.localisation_rows`).

    Args:
        values: [M, metrics] by explainer, one of which is ``chance`` (:func:`word_values`).
        kinds: The kind of each word, [M]; the kind ``all`` is added for all words together.
        captions: The key of the caption that each word belongs to, [M].
        about: Columns of every row that name the model.
        seed: Seed of the bootstrap.

    Returns:
        ``rows`` with explainer, ``about``, modality (image), kind, metric, value, ci95, above_chance,
        above_chance_ci95, samples (captions) and words; ``left_out``, the number of words whose objects fill no patch.

    Raises:
        ValueError: The numbers of words differ, or there is no word.
    """
    known = ~np.isnan(values[CHANCE][:, 0])
    if not len(kinds) == len(captions) == len(known) > 0:
        raise ValueError(
            f"metrics of {len(known)} words, {len(kinds)} kinds and {len(captions)} captions: "
            "their numbers must be equal and above 0"
        )
    rows: list[dict[str, Any]] = []
    for kind in (ALL, *sorted(set(kinds))):
        chosen = known & np.array([kind in (ALL, each) for each in kinds])
        if chosen.any():
            rows += _rows(values, chosen, kind, np.asarray(captions), about, seed)
    return {"rows": rows, "left_out": int((~known).sum())}


def _rows(
    values: Mapping[str, Array],
    chosen: Mask,
    kind: str,
    captions: NDArray[np.int64],
    about: Mapping[str, str],
    seed: int,
) -> list[dict[str, Any]]:
    """Return the rows of the chosen words, all of which have evidence."""
    _, place = np.unique(captions[chosen], return_inverse=True)
    means = {name: _caption_means(table[chosen], place) for name, table in values.items()}
    samples = len(means[CHANCE])
    rows = localisation_rows({"image": means}, [kind] * samples, about, seed)["by_kind"]
    return [{**row, "words": int(chosen.sum())} for row in rows]


def _caption_means(table: Array, place: NDArray[np.intp]) -> Array:
    """Return the mean over the words of each caption: [words, metrics] → [captions, metrics].

    ``place`` [words] is the row of each word's caption in the result.
    """
    sums = np.zeros((place.max() + 1, table.shape[1]))
    np.add.at(sums, place, table)
    return sums / np.bincount(place)[:, None]
