"""SaCo compared with a slow loop, and for rankings with a known value."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sum_reader import SumReader, explained

from clipmapper.errors import UserError
from perturbation.measures.saco import SaCo, groups_of, saco
from perturbation.perturb.records import record_batch
from perturbation.removal.order import draw_ties

VALUES = st.integers(-4, 4).map(float)


def slow_saco(
    scores: list[float], removable: list[bool], groups: int, effects: dict[int, float], ties: list[float]
) -> float:
    """Compute SaCo from its definition, one sample and one pair at a time.

    The effect of a group is the sum of the effects of its tokens.
    """
    order = sorted((t for t in range(len(scores)) if removable[t]), key=lambda token: (-scores[token], ties[token]))
    size, larger = divmod(len(order), groups)
    members, first = [], 0
    for number in range(groups):
        last = first + size + (number < larger)
        if last > first:
            members.append(order[first:last])
        first = last
    if len(members) < 2:
        return math.nan
    salience = [sum(scores[t] for t in each) / len(each) for each in members]
    effect = [sum(effects[t] for t in each) for each in members]
    above = below = 0.0
    for i, j in itertools.combinations(range(len(members)), 2):
        weight = salience[i] - salience[j]
        above += weight if effect[i] >= effect[j] else -weight
        below += abs(weight)
    return above / below if below else 0.0


def measured(scores: np.ndarray, removable: np.ndarray, effects: np.ndarray, groups: int) -> np.ndarray:
    """Return the recorded values for a model that sums the effects of the kept tokens."""
    batch = explained({"image": {"mine": scores}}, {"image": removable})
    reader, values = SumReader(), {"image": effects, "text": np.zeros((len(scores), 1))}
    tables = record_batch({"saco": SaCo(groups)}, batch, reader, values, None)
    return np.asarray(tables["saco"][0]["saco"].to_numpy())


@settings(deadline=None, max_examples=60)
@given(
    scores=arrays(np.float64, (3, 7), elements=VALUES),
    effects=arrays(np.float64, (3, 7), elements=VALUES),
    removable=arrays(np.bool_, (3, 7)),
    groups=st.integers(2, 9),
)
def test_it_equals_the_slow_loop(scores: np.ndarray, effects: np.ndarray, removable: np.ndarray, groups: int) -> None:
    found = measured(scores, removable, effects, groups)
    ties = draw_ties(0, range(3), "image", 7).tolist()
    for b in range(3):
        effect = dict(enumerate(effects[b].tolist()))
        expected = slow_saco(scores[b].tolist(), removable[b].tolist(), groups, effect, ties[b])
        assert found[b] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("groups", [2, 3, 12])
def test_the_ranking_of_the_effects_is_1_and_its_reverse_minus_1(groups: int) -> None:
    effects = np.random.default_rng(0).normal(size=(5, 12))
    everything = np.ones(effects.shape, dtype=bool)
    np.testing.assert_allclose(measured(3 * effects - 7, everything, effects, groups), 1)
    np.testing.assert_allclose(measured(-effects, everything, effects, groups), -1)


def test_one_pair_in_the_wrong_order_by_hand() -> None:
    """Scores 4, 2, 1 and effects 2, 5, 1 give (−2 + 3 + 1) / (2 + 3 + 1)."""
    one = np.ones((1, 3), dtype=bool)
    assert measured(np.array([[4.0, 2.0, 1.0]]), one, np.array([[2.0, 5.0, 1.0]]), 3) == pytest.approx(1 / 3)


@pytest.mark.filterwarnings("error")
def test_equal_scores_are_0_and_samples_with_one_token_are_left_out() -> None:
    """The means of three times 0.1 and of four times 0.1 differ by rounding, but the scores count as equal."""
    effects = np.random.default_rng(0).normal(size=(3, 7))
    removable = np.ones((3, 7), dtype=bool)
    removable[1, 1:], removable[2] = False, False
    found = measured(np.full((3, 7), 0.1), removable, effects, 2)
    assert found[0] == 0
    assert np.isnan(found[1:]).all()


def test_groups_start_with_the_highest_scores() -> None:
    scores = np.array([[5.0, 9.0, 1.0, 7.0, 3.0, 8.0], [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    removable = np.array([[True, False, True, True, True, True], [True, True, False, False, False, False]])
    assert groups_of(scores, removable, 2, np.zeros((2, 6))).tolist() == [[0, -1, 1, 0, 1, 0], [1, 0, -1, -1, -1, -1]]
    assert groups_of(scores, removable, 4, np.zeros((2, 6)))[1].tolist() == [1, 0, -1, -1, -1, -1]


def test_effects_of_groups_without_tokens_are_ignored() -> None:
    nothing = np.full((1, 3), np.nan)
    assert np.isnan(saco(np.ones((1, 4)), np.full((1, 4), -1), nothing)).all()
    pair = saco(np.array([[2.0, 1.0]]), np.array([[0, 1]]), np.array([[1.0, 0.0, np.nan]]))
    assert pair.tolist() == [1.0]


def test_the_report_is_the_mean_over_the_samples_with_a_value(tmp_path: Path) -> None:
    table = pa.table(
        {"modality": ["text"] * 3, "explainer": ["mine"] * 3, "seed": [0] * 3, "saco": [1.0, 0.5, float("nan")]}
    )
    (row,) = SaCo(4).report({"saco": table}, tmp_path)["saco"]
    assert (row["explainer"], row["modality"], row["groups"]) == ("mine", "text", 4)
    assert (row["saco"]["mean"], row["saco"]["samples"], row["saco"]["left_out"]) == (0.75, 2, 1)


def test_one_group_is_refused() -> None:
    with pytest.raises(UserError, match=r"measure\.saco\.groups=1 must be 2 or more"):
        SaCo(1)
