"""Targets of patches against a slow loop, and the prompts for the same values."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from clipmapper.data.shapes.render import draw_masks
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, sample_scene, truth
from clipmapper.encoder.pretraining.targets import (
    ABSENT,
    ATTRIBUTES,
    RELATED,
    attribute_prompts,
    patch_targets,
    relation_prompts,
)


def slow_share(objects: np.ndarray, patch: int, index: int) -> float:
    """Return the share of a 10 × 10 patch that shows the object ``index``, or any object if ``index`` is 0."""
    top, left = 10 * (patch // 6), 10 * (patch % 6)
    count = 0
    for row in range(top, top + 10):
        for column in range(left, left + 10):
            count += objects[row, column] == index if index else objects[row, column] > 0
    return count / 100


def test_patch_targets_equal_a_slow_loop() -> None:
    scenes = [sample_scene(Random(f"patches {i}"), 1, 4) for i in range(6)]
    maps = np.stack([np.asarray(draw_masks(scene, 60)) for scene in scenes])
    maps[0, np.arange(60) % 4 > 0] = 0  # thin objects, which cover no patch to a large part
    seen = [truth(scene) for scene in scenes]
    targets = patch_targets(seen, maps, 6, Random(0))
    found: dict[tuple[int, int, tuple[int, ...]], list[float]] = {}
    background = []
    for b, patch, attributes, related, is_object in zip(
        *(t.tolist() for t in (targets.image, targets.patch, targets.attributes, targets.related, targets.is_object)),
        strict=True,
    ):
        if is_object:
            found[b, patch, tuple(attributes)] = related
        else:
            background.append((b, patch))
            assert attributes == [ABSENT, len(SHAPES), ABSENT, ABSENT]
    expected = {}
    for b, objects in enumerate(maps):
        for s in seen[b]:
            shares = [slow_share(objects, patch, s.index + 1) for patch in range(36)]
            for patch, share in enumerate(shares):
                if share > min(0.3, 0.8 * max(shares)):
                    expected[b, patch, slow_attributes(s)] = slow_related(s, seen[b])
    assert found == expected
    assert len(background) == len(set(background)) == 12
    assert all(slow_share(maps[b], patch, 0) == 0 for b, patch in background)


def slow_attributes(s: Any) -> tuple[int, ...]:
    corner = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}[(s.x >= 0.5, s.y >= 0.5)]
    return list(COLORS).index(s.color), SHAPES.index(s.shape), SIZES.index(s.size), corner


def slow_related(s: Any, scene: Any) -> list[float]:
    tests = {
        "left of": lambda o: o.x - s.x > 0.03,
        "right of": lambda o: s.x - o.x > 0.03,
        "above": lambda o: o.y - s.y > 0.03,
        "below": lambda o: s.y - o.y > 0.03,
    }
    return [
        float(any(o is not s and tests[relation](o) and neighbour in (o.color, o.shape) for o in scene))
        for relation, neighbour in RELATED
    ]


def test_prompts_are_in_the_order_of_the_targets() -> None:
    values = [value for attribute in ATTRIBUTES.values() for value in attribute]
    prompts = attribute_prompts(Random(0))
    assert len(prompts) == len(values)
    assert all(f" {value}" in f" {prompt}" for value, prompt in zip(values, prompts, strict=True))
    words = {"left of": "left of", "right of": "right of", "above": "above over higher", "below": "below under lower"}
    for (relation, neighbour), prompt in zip(RELATED, relation_prompts(Random(0)), strict=True):
        assert any(word in prompt for word in ([relation] if "of" in relation else words[relation].split()))
        assert f"the {neighbour}" in prompt
