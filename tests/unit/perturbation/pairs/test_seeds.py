"""What is drawn at random depends on the seed and the sample alone: not on other samples, nor on torch's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import sample_models
import torch
from no_figures import without_figures
from numpy.typing import ArrayLike
from sample_models import QUESTION, photo

import perturbation
from explain import Explainer, explainers
from perturbation.arrays import Array
from perturbation.measures.base import ExplainedBatch, ScoredBy
from perturbation.pairs.explaining import Chosen, explained_pairs
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.function import FunctionScorer
from perturbation.pairs.units import Units, cells, words_of

pytest.importorskip("transformers")
TEXT = "one two three four five six"  # as many words as there are cells
GRID = (2, 3)
PAIRS = [Pair(number, photo(), TEXT) for number in (3, 5)]  # two samples that are equal, but for their ids


def own(_image: Any, _text: Any) -> tuple[ArrayLike, ArrayLike]:
    return np.zeros(GRID), np.zeros(6)


def all_differ(arrays: Sequence[Array]) -> bool:
    return not any(np.array_equal(one, other) for one, other in combinations(arrays, 2))


def drawn(pairs: Sequence[Pair], seed: int, batch_seeds: int = 2) -> ExplainedBatch:
    """Return the scores of random orders for cells and words."""
    return explained_pairs(None, None, pairs, Chosen({}, {"own": own}, ["random"], batch_seeds), 0, seed)[0]


def test_random_orders_differ_by_sample_modality_number_and_seed() -> None:
    batch = drawn(PAIRS, 0)
    scores = {
        (modality, k): batch.tokens[modality].scores[ScoredBy("random", k, True)]  # type: ignore[index]
        for modality in ("image", "text")
        for k in (0, 1)
    }
    assert all_differ([row for rows in scores.values() for row in rows])
    alone, other = drawn(PAIRS[1:], 0), drawn(PAIRS, 7)
    for (modality, k), rows in scores.items():
        by = ScoredBy("random", k, True)
        np.testing.assert_array_equal(alone.tokens[modality].scores[by][0], rows[1])  # type: ignore[index]
        assert all_differ([*rows, *other.tokens[modality].scores[by]])  # type: ignore[index]


def test_equal_scores_are_ordered_by_sample_and_seed() -> None:
    orders = [*drawn(PAIRS, 0).ties("image"), *drawn(PAIRS, 1).ties("image")]
    assert all_differ(orders)
    np.testing.assert_array_equal(drawn(PAIRS[1:], 0).ties("image")[0], orders[1])


def test_an_explainer_that_draws_differs_by_sample_seed_and_its_own_seed() -> None:
    model, processor = sample_models.clip()
    pairs = [Pair(pair.id, pair.image, QUESTION) for pair in PAIRS]

    def scores(places: Sequence[int], seed: int, own_seed: int = 0) -> Array:
        chosen: dict[str, Explainer] = {"it": explainers.Random(own_seed)}
        batch, _ = explained_pairs(model, processor, [pairs[k] for k in places], Chosen(chosen, {}, [], 1), 0, seed)
        return batch.tokens["image"].scores[ScoredBy("it", control=True)]

    first = scores((0, 1), 0)
    assert all_differ([*first, *scores((0, 1), 1), *scores((0, 1), 0, own_seed=1)])
    np.testing.assert_array_equal(scores((1,), 0)[0], first[1])


@pytest.mark.parametrize("how", ["noise", "noisy_linear"])
def test_the_noise_in_removed_cells_differs_by_sample_and_seed(how: Any) -> None:
    scorer = FunctionScorer(lambda images, _: [0.0] * len(images))
    units = [Units(GRID, cells(GRID, (0, 0, 30, 20)), words_of(TEXT), TEXT)] * 2

    def without_cells(places: Sequence[int], seed: int) -> list[Array]:
        pairs = [PAIRS[k] for k in places]
        samples = PairReader(scorer, how, "drop", 8, correct=False).samples(pairs, units[: len(pairs)], seed)
        return [np.asarray(each.image_without(np.zeros(6, np.bool_))) for each in samples.fillers if each is not None]

    first = without_cells((0, 1), 0)
    assert len(first) == 2
    assert all_differ([*first, *without_cells((0, 1), 1)])
    np.testing.assert_array_equal(without_cells((1,), 0)[0], first[1])


def measured(model: Callable[..., ArrayLike], count: int = 3, **options: Any) -> Any:
    samples = [(photo(seed=k), TEXT) for k in range(count)]
    given: dict[str, Any] = {"explainers": {"own": own}, "controls": [], "steps": [0, 0.5, 1], "batch_samples": 1}
    with without_figures():
        return perturbation.test(model, None, samples, **{**given, **options})


def values_of(result: Any) -> Array:
    """Return the values of every sample, [samples, …]."""
    rows = sorted(result.records["samples"].to_pylist(), key=lambda row: row["sample_id"])
    return np.array([row["score"] for row in rows]).reshape(3, -1)


def test_a_model_that_draws_draws_the_same_whatever_was_drawn_before() -> None:
    """A resumed run has the numbers of a whole one; the state of torch's generator is left as it was."""

    def draws(images: Sequence[Any], _texts: Sequence[Any]) -> ArrayLike:
        return torch.rand(len(images)).numpy()

    found = []
    for state, seed in ((1, 0), (2, 0), (1, 9)):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        found.append(values_of(measured(draws, seed=seed)))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.isclose(found[0], found[2]).any()
    assert not np.isclose(found[0][1], found[0][2]).any()  # two batches


def brightness(images: Sequence[Any], texts: Sequence[Any]) -> ArrayLike:
    return [np.asarray(image).mean() / 255 + len(text) for image, text in zip(images, texts, strict=True)]


def rising(_image: Any, _text: Any) -> tuple[ArrayLike, ArrayLike]:
    return np.arange(6.0).reshape(GRID), np.arange(6.0)


def test_the_seed_of_a_test_draws_orders_and_noise() -> None:
    for name, options in (("random", {"controls": ["random"]}), ("own", {"image_removal": "noise"})):
        curves = [
            [row["score"] for row in content["rows"] if (row["explainer"], row["modality"]) == (name, "image")]
            for seed in (0, 0, 9)
            for content in [measured(brightness, explainers={"own": rising}, seed=seed, **options).content]
        ]
        assert curves[0] == curves[1]
        assert curves[0] != curves[2]


def test_the_seed_of_a_test_draws_the_bootstrap() -> None:
    """The scores have one order, so the areas are equal, and the intervals differ."""
    one, other = (measured(brightness, 16, explainers={"own": rising}, seed=seed).content["rows"] for seed in (0, 3))
    assert [row["auc"] for row in one] == [row["auc"] for row in other]
    assert [row["auc_ci95"] for row in one] != [row["auc_ci95"] for row in other]
