"""The greedy search: it finds the best order if effects add up, and stays within the bounds of all subsets if not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_vqa, samples

from perturbation.arrays import Array, Mask
from perturbation.measures.ceiling import all_subsets, bounds
from perturbation.removal.engine import Engine
from perturbation.removal.greedy import RANDOM_ORDERS, greedy_masks, greedy_scores
from perturbation.report.curves import areas

STEPS = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0)
Read = Callable[[Mask], Array]


def additive(effects: Array) -> Read:
    """Return a model whose answer is the sum of the effects of the kept tokens: kept [B, M, n] → [B, M]."""
    return lambda kept: np.einsum("bmn,bn->bm", kept, effects)


def interacting(effects: Array, seed: int) -> Read:
    """Return a model in which pairs and triples of tokens interact."""
    pairs = np.random.default_rng(seed).normal(size=(2, *effects.shape, effects.shape[1]))

    def read(kept: Mask) -> Array:
        k = kept.astype(float)
        linear, quadratic = np.einsum("bmn,bn->bm", k, effects), np.einsum("bmi,bij,bmj->bm", k, pairs[0], k)
        return np.tanh(linear + quadratic + np.einsum("bmi,bij,bmj->bm", k, pairs[1], k) * k[:, :, 0])

    return read


def curves(read: Read, removable: Mask, masks: Mask) -> Array:
    """Return the areas of consecutive orders, [B, orders]."""
    return areas(read(masks).reshape(len(removable), -1, len(STEPS)), STEPS)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), tokens=st.integers(1, 9))
def test_if_effects_add_up_the_search_sorts_them(seed: int, tokens: int) -> None:
    """The smallest sum without k effects is the sum without the k largest; the largest is without the k smallest."""
    draw = np.random.default_rng(seed)
    effects, removable = draw.normal(size=(4, tokens)), draw.random((4, tokens)) < 0.7
    removable[0] = False
    found = greedy_masks(additive(effects), removable, STEPS, list("abcd"))
    for b in range(4):
        own = np.sort(effects[b, removable[b]])
        for s, step in enumerate(STEPS):
            gone = int(np.ceil(step * len(own)))
            whole = effects[b].sum()
            for end, removed in (("lowest", own[len(own) - gone :]), ("highest", own[:gone])):
                kept = found[end][b, s]
                assert kept[~removable[b]].all()
                assert (~kept).sum() == gone
                assert effects[b, kept].sum() == pytest.approx(whole - removed.sum())


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**20))
def test_every_removal_is_the_best_given_those_before(seed: int) -> None:
    """Compare with a loop over sets, one sample and one candidate at a time."""
    draw = np.random.default_rng(seed)
    read = interacting(draw.normal(size=(3, 6)), seed)
    removable = draw.random((3, 6)) < 0.8
    order = np.argsort(-np.where(removable, greedy_scores(read, removable, np.zeros(removable.shape)), -1.0), axis=1)
    for b in range(3):
        gone: list[int] = []
        for _ in range(removable[b].sum()):
            worth = {}
            for token in np.flatnonzero(removable[b]):
                if token not in gone:
                    kept = np.array([[i not in (*gone, token) for i in range(6)]] * 3)
                    worth[int(token)] = float(read(kept[:, None])[b, 0])
            gone.append(min(worth, key=lambda token: worth[token]))
        assert order[b, : len(gone)].tolist() == gone


def test_equally_good_tokens_are_removed_in_the_order_of_their_numbers() -> None:
    ties = np.random.default_rng(0).random((3, 6))
    removable = np.ones((3, 6), dtype=bool)
    scores = greedy_scores(lambda kept: np.zeros(kept.shape[:2]), removable, ties)
    np.testing.assert_array_equal(np.argsort(-scores), np.argsort(ties))


def test_the_searched_orders_are_between_random_orders_and_the_bounds_of_all_subsets() -> None:
    read = interacting(np.random.default_rng(0).normal(size=(40, 6)), 1)
    removable = np.ones((40, 6), dtype=bool)
    found = greedy_masks(read, removable, STEPS, [str(b) for b in range(40)])
    subsets = read(all_subsets(removable, range(40)))
    low, high = (curves(read, removable, found[end])[:, 0] for end in ("lowest", "highest"))
    every = [{end: areas(curve, STEPS) for end, curve in bounds(row, STEPS).items()} for row in subsets]
    for b in range(40):
        assert every[b]["lowest"] - 1e-9 <= low[b]
        assert high[b] <= every[b]["highest"] + 1e-9
    mean = np.mean([each["mean"] for each in every])
    assert low.mean() < mean < high.mean()


def test_random_orders_are_as_good_as_all_orders_on_average() -> None:
    """A sample also has the same random orders in every batch."""
    count = 200
    read = interacting(np.random.default_rng(0).normal(size=(count, 4)), 1)
    removable = np.ones((count, 4), dtype=bool)
    names = [str(b) for b in range(count)]
    found = greedy_masks(read, removable, STEPS, names)["random"]
    assert found.shape == (count, RANDOM_ORDERS * len(STEPS), 4)
    orders = np.array(list(itertools.permutations(range(4))))
    gone = np.ceil(np.array(STEPS) * 4)
    every = (np.argsort(orders, axis=1)[:, None, :] >= gone[:, None]).reshape(-1, 4)
    exact = curves(read, removable, np.broadcast_to(every, (count, *every.shape)))
    drawn = curves(read, removable, found)
    error = exact.std(axis=1) / RANDOM_ORDERS**0.5
    assert abs(drawn.mean() - exact.mean()) < 4 * np.sqrt((error**2).sum()) / count
    assert len(np.unique(found[0].reshape(RANDOM_ORDERS, -1), axis=0)) > 8
    some = greedy_masks(lambda kept: kept.sum(2).astype(float), removable[:2], STEPS, names[3:5])["random"]
    np.testing.assert_array_equal(some, found[3:5])


def test_the_search_on_a_model_beats_random_orders() -> None:
    torch.set_num_threads(1)
    model = random_vqa("b")
    engine = Engine(model, 64)
    inputs = engine.cache(*samples(3))
    removable = np.ones((3, 9), dtype=bool)
    removable[2] = False

    def read(kept: Mask) -> Array:
        image = torch.cat([torch.ones(*kept.shape[:2], 1, dtype=torch.bool), torch.from_numpy(kept)], 2)
        return engine.read(inputs, image, None, inputs.answers).probability.double().numpy()

    found = greedy_masks(read, removable, STEPS, list("abc"))
    area = {end: curves(read, removable, masks).mean(axis=1) for end, masks in found.items()}
    assert np.all(area["lowest"][:2] < area["random"][:2])
    assert np.all(area["random"][:2] < area["highest"][:2])
    assert all(found[end][2].all() for end in ("lowest", "random", "highest"))
