"""The pool of scenes and its batches: twins, turns, and the positions of objects."""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np
import pytest

from clipmapper.encoder.pretraining.pool import CAPTION_KINDS, Pool, draw_pool, sample_batch, turn_array
from clipmapper.encoder.pretraining.run import PIXELS


@cache
def pool() -> Pool:
    return draw_pool(64, PIXELS, 0, 1)


def test_a_pool_depends_on_the_seed_but_not_on_the_number_of_workers() -> None:
    one, two, other = draw_pool(8, PIXELS, 0, 1), draw_pool(8, PIXELS, 0, 2), draw_pool(8, PIXELS, 1, 1)
    assert one.scenes == two.scenes == pool().scenes[:8]
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.maps, two.maps)
    assert (one.images != other.images).any((1, 2, 3)).all()


def test_a_batch_with_twins_contains_each_scene_before_its_twin_turned_in_the_same_way() -> None:
    batch = sample_batch(pool(), 16, True, CAPTION_KINDS, Random(0))
    assert len(batch.images) == len(batch.captions) == len(batch.seen) == 16
    for k in range(0, 16, 2):
        found = [
            (pair, turn, mirrored)
            for pair in range(32)
            for turn in range(4)
            for mirrored in (False, True)
            if all(
                np.array_equal(batch.images[k + j], turn_array(pool().images[2 * pair + j], turn, mirrored))
                and np.array_equal(batch.maps[k + j], turn_array(pool().maps[2 * pair + j], turn, mirrored))
                for j in (0, 1)
            )
        ]
        assert len({pair for pair, _, _ in found}) == 1


def test_without_twins_a_batch_contains_no_pair_twice() -> None:
    batch = sample_batch(pool(), 32, False, 1, Random(0))
    origin = [_pair_of(image) for image in batch.images]
    assert len(set(origin)) == 32


def _pair_of(image: np.ndarray) -> int:
    histograms = np.sort(pool().images.reshape(64, -1), 1)
    (places,) = np.nonzero((histograms == np.sort(image.ravel())).all(1))
    return int(places[0]) // 2


@pytest.mark.parametrize("twins", [True, False])
def test_the_maps_of_a_batch_show_its_objects_at_their_positions(twins: bool) -> None:
    batch = sample_batch(pool(), 16, twins, CAPTION_KINDS, Random(1))
    for seen, objects in zip(batch.seen, batch.maps, strict=True):
        for s in seen:
            rows, columns = np.nonzero(objects == s.index + 1)
            assert abs((columns.mean() + 0.5) / PIXELS - s.x) < 0.1  # moons and hearts are asymmetric
            assert abs((rows.mean() + 0.5) / PIXELS - s.y) < 0.1


def test_with_one_kind_of_captions_they_list_all_objects() -> None:
    batch = sample_batch(pool(), 32, True, 1, Random(0))
    for seen, text in zip(batch.seen, batch.captions, strict=True):
        assert all(s.color in text and s.shape in text for s in seen)
