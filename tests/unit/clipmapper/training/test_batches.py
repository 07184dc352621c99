"""Tests of batches by step: complete epochs, independence of the start step, and sharing among processes."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.training.batches import StepSampler, even_batches, in_order

SIZES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(1, 50), seed=st.integers(0, 3))
def test_every_epoch_holds_each_question_once(size: int, batch: int, seed: int) -> None:
    steps = math.ceil(3 * size / batch)
    batches = list(StepSampler(size, batch, steps, seed))
    assert [len(rows) for rows in batches] == [batch] * steps
    flat = [row for rows in batches for row in rows]
    for epoch in range(3):
        assert sorted(flat[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_every_epoch_and_seed_has_a_different_order() -> None:
    orders = {tuple(rows) for seed in (0, 1) for rows in StepSampler(50, 50, 3, seed)}
    assert len(orders) == 6
    assert tuple(range(50)) not in orders


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(1, 30), start=st.integers(0, 12))
def test_a_batch_does_not_depend_on_the_step_where_training_began(size: int, batch: int, start: int) -> None:
    whole = list(StepSampler(size, batch, 12, 5))
    resumed = StepSampler(size, batch, 12, 5)
    resumed.start = start
    assert list(resumed) == whole[start:]
    assert list(resumed) == whole[start:]
    assert len(resumed) == 12


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(4, 30), world=st.integers(1, 4))
def test_processes_share_each_batch_evenly(size: int, batch: int, world: int) -> None:
    shares = [list(StepSampler(size, batch, 6, 2, rank, world)) for rank in range(world)]
    for step, rows in enumerate(StepSampler(size, batch, 6, 2)):
        assert Counter(row for share in shares for row in share[step]) == Counter(rows)
        assert max(len(share[step]) for share in shares) - min(len(share[step]) for share in shares) <= 1


def test_evaluation_reads_every_row_once_in_order() -> None:
    assert in_order(5, 2) == [[0, 1], [2, 3], [4]]
    assert in_order(4, 2) == [[0, 1], [2, 3]]


@given(count=st.integers(1, 300), size=st.integers(1, 40))
def test_even_batches_hold_every_row_once_and_differ_by_at_most_one_row(count: int, size: int) -> None:
    batches = even_batches(list(range(count)), size)
    assert [row for batch in batches for row in batch] == list(range(count))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1 or count == 1 or size < 3
