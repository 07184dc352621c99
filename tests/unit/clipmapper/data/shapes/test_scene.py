"""Scenes of ``shapes``: positions, pixels, twins and turns, measured on the drawn images."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmapper.data.shapes.language import RELATIONS, holds
from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import (
    COLORS,
    SHAPES,
    Attribute,
    Background,
    Scene,
    SceneObject,
    sample_scene,
    truth,
    turned,
    twin,
)
from clipmapper.encoder.pretraining.pool import turn_array

# Geometric areas in squared radii; the curve of the heart has an area of 180π in a box of width 32.
AREAS = {
    "circle": math.pi,
    "ring": math.pi * (1 - 0.52**2),
    "square": 1.72**2,
    "rectangle": 1.72**2,
    "triangle": 3 * math.sqrt(3) / 4 * 1.08**2,
    "diamond": 2 * 0.8 * 1.1,
    "star": 5 * 1.1 * 0.45 * math.sin(math.pi / 5),
    "cross": 4 * 2 * 0.34 - 0.68**2,
    "heart": 180 * math.pi / 256,
}
SYMMETRIC = set(SHAPES) - {"heart", "moon"}


def scenes(count: int, name: str = "test") -> list[Scene]:
    return [sample_scene(Random(f"{name} {i}")) for i in range(count)]


def mask_of(o: SceneObject, pixels: int) -> np.ndarray:
    plain = Background("dark", "plain", (0, 0, 0), 0)
    return np.asarray(draw_masks(Scene(plain, (o,)), pixels)) == 1


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """Return the centroid (x, y) as shares of the width."""
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5) / len(mask), (rows.mean() + 0.5) / len(mask)


def eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """Return the pixels whose whole neighbourhood is inside the mask."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, by), (2 * by + 1, 2 * by + 1))
    return windows.all((2, 3))


def test_objects_do_not_overlap_and_are_inside_the_image() -> None:
    for scene in scenes(300):
        assert 2 <= len(scene.objects) <= 4
        for i, a in enumerate(scene.objects):
            assert a.radius < a.x < 1 - a.radius
            assert a.radius < a.y < 1 - a.radius
            for b in scene.objects[:i]:
                assert math.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


def test_objects_hide_almost_nothing_of_each_other() -> None:
    """Corners can be outside the circles that do not overlap, so a few pixels can be shared."""
    hidden, whole = 0, 0
    for scene in scenes(200):
        together = np.asarray(draw_masks(scene, 128))
        for i, o in enumerate(scene.objects):
            alone = mask_of(o, 128)
            lost = int((alone & (together != i + 1)).sum())
            assert lost < 0.2 * alone.sum()
            hidden, whole = hidden + lost, whole + int(alone.sum())
    assert hidden / whole < 0.005


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_have_the_position_and_size_of_the_object(shape: str) -> None:
    checked = 0
    for scene in scenes(150):
        for o in scene.objects:
            if o.shape.name == shape:
                mask, checked = mask_of(o, 256), checked + 1
                x, y = centroid(mask)
                off = math.hypot(x - o.x, y - o.y)
                fits = 1.75 if shape == "rectangle" else 1.3
                assert off < (0.008 if shape in SYMMETRIC else 0.45 * o.radius) + (0.03 if fits > 1.5 else 0)
                area = mask.mean() / o.radius**2
                if shape == "moon":
                    assert 1.0 < area < 2.2
                elif fits < 1.5:  # a long shape can be cut off by the border
                    assert area == pytest.approx(AREAS[shape], rel=0.1)
                else:
                    assert 0.85 * AREAS[shape] < area < 1.1 * AREAS[shape]
    assert checked > 10


def test_rectangles_are_clearly_longer_than_wide() -> None:
    for scene in scenes(100):
        for o in scene.objects:
            if o.shape.name in ("rectangle", "square", "circle") and not o.shape.doubt:
                level = replace(o, angle=0.0, x=0.5, y=0.5)
                rows, columns = np.nonzero(mask_of(level, 256))
                ratio = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
                longer = max(ratio, 1 / ratio)
                assert (longer > 1.5) if o.shape.name == "rectangle" else (longer < 1.1)


def test_objects_and_plain_backgrounds_have_exactly_their_color() -> None:
    object_pixels, background_pixels = 0, 0
    for scene in scenes(80):
        image, mask = np.asarray(draw_scene(scene, 128)), np.asarray(draw_masks(scene, 128))
        for i, o in enumerate(scene.objects):
            inside = image[eroded(mask == i + 1, 3)]
            assert (inside == o.rgb).all(1).mean() >= 0.99  # the outline of a heart reaches inside at its notch
            object_pixels += len(inside)
        if scene.background.texture == "plain":
            outside = image[eroded(mask == 0, 3)]
            assert (outside == scene.background.rgb).mean() > 0.999
            background_pixels += len(outside)
    assert object_pixels > 10_000
    assert background_pixels > 10_000


def test_a_color_has_the_name_of_the_nearest_named_color_or_is_between_two_names() -> None:
    ambiguous = 0
    for scene in scenes(300):
        for o in scene.objects:
            distance = {name: math.dist(o.rgb, rgb) for name, rgb in COLORS.items()}
            assert min(distance, key=distance.__getitem__) == o.color.name or o.color.doubt
            if o.color.doubt:
                ambiguous += 1
                assert 0.1 < o.color.doubt <= 0.5
                assert distance[o.color.name] < math.dist(COLORS[o.color.name], COLORS[o.color.other])
    assert ambiguous > 30


def test_objects_contrast_with_the_background() -> None:
    for scene in scenes(200):
        for o in scene.objects:
            assert sum(abs(a - b) for a, b in zip(o.rgb, scene.background.rgb, strict=True)) > 90


def test_ambiguous_sizes_are_between_small_and_large() -> None:
    objects = [o for scene in scenes(300) for o in scene.objects]
    clear = {name: [o.radius for o in objects if o.size == Attribute(name)] for name in ("small", "large")}
    ambiguous = [o.radius for o in objects if o.size.doubt]
    assert max(clear["small"]) <= min(ambiguous) < max(ambiguous) <= min(clear["large"])


def test_twins_differ_in_one_attribute_or_in_two_positions() -> None:
    unchanged = swaps = 0
    for i in range(600):
        rng = Random(f"twin {i}")
        scene = sample_scene(rng, 1, 4)
        other = twin(scene, rng)
        assert other.background == scene.background
        pairs = list(zip(truth(scene), truth(other), strict=True))
        named = [(k, n) for k, (a, b) in enumerate(pairs) for n in ("shape", "color", "size") if _differ(a, b, n)]
        moved = [k for k, (a, b) in enumerate(pairs) if math.hypot(a.x - b.x, a.y - b.y) > 0.12]
        assert len(named) <= 1
        assert not named or not moved
        assert len(moved) in (0, 2)
        if moved:  # to the other object's position, or as close to it as a large object can be at the border
            (a, b), (c, d) = (pairs[k] for k in moved)
            assert max(math.hypot(b.x - c.x, b.y - c.y), math.hypot(d.x - a.x, d.y - a.y)) < 0.14
            swaps += 1
        unchanged += not named and not moved
    assert swaps > 120
    assert unchanged < 0.25 * 600


def _differ(a: object, b: object, name: str) -> bool:
    return bool(getattr(a, name) != getattr(b, name))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.booleans())
def test_a_turned_scene_is_the_scene_of_the_turned_image(seed: int, turns: int, mirrored: bool) -> None:
    scene = sample_scene(Random(f"turn {seed}"))
    round_ones = tuple(replace(o, shape=Attribute("circle"), aspect=1.0) for o in scene.objects)
    image = turn_array(np.asarray(draw_masks(Scene(scene.background, round_ones), 128)), turns, mirrored)
    after = turned(scene, turns, mirrored)
    for i, o in enumerate(after.objects):
        x, y = centroid(image == i + 1)
        assert math.hypot(x - o.x, y - o.y) < 0.012
        assert (o.shape, o.color, o.size) == tuple(getattr(scene.objects[i], n) for n in ("shape", "color", "size"))


def test_turns_can_be_undone_and_change_relations() -> None:
    scene = scenes(1)[0]
    for turns in range(4):
        there = turned(scene, turns, False)
        back = turned(there, 4 - turns, False)
        assert all(a.x == pytest.approx(b.x) for a, b in zip(scene.objects, back.objects, strict=True))
    once = turned(scene, 1, False)  # anticlockwise: right becomes above
    for a, b in ((a, b) for a in range(len(scene.objects)) for b in range(len(scene.objects)) if a != b):
        was, now = truth(scene), truth(once)
        assert holds("right of", was[a], was[b]) == holds("above", now[a], now[b])


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_opposite_relations_exclude_each_other(seed: int) -> None:
    seen = truth(sample_scene(Random(f"relation {seed}")))
    for relation, opposite in (RELATIONS[:2], RELATIONS[2:]):
        for a in seen:
            for b in seen:
                if a is not b:
                    assert holds(relation, a, b) == holds(opposite, b, a)
                    assert not (holds(relation, a, b) and holds(opposite, a, b))
