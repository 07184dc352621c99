"""A pool of drawn scenes, and the batches that pre-training takes from it.

Every scene stands beside its twin, which differs in one attribute or in the places of two objects. Batches turn and
mirror the scenes (their words follow), so a pool of n scenes shows 8·n pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
from PIL import Image

from clipmapper.data.shapes.captions import captions, phrase
from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import Scene, sample_scene, truth, turned, twin

SCENE_PIXELS = 128


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [B, P, P, 3]; a caption each; ``regions`` [R, G, G] the share of each patch that object r covers;
    ``region_scene`` [R] the image it is in; a phrase each."""

    images: np.ndarray
    captions: list[str]
    regions: np.ndarray
    region_scene: np.ndarray
    phrases: list[str]


def draw_pool(count: int, pixels: int, seed: int, workers: int = 2) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    """Scenes in pairs (a scene, its twin), their pictures uint8 [n, P, P, 3] and object maps uint8 [n, P, P]."""
    chunks = [range(i, min(i + 250, count // 2)) for i in range(0, count // 2, 250)]
    with ProcessPoolExecutor(workers) as pool:
        drawn = list(pool.map(partial(_draw_pairs, pixels=pixels, seed=seed), chunks))
    scenes = [scene for part in drawn for scene in part[0]]
    return scenes, np.concatenate([part[1] for part in drawn]), np.concatenate([part[2] for part in drawn])


def _draw_pairs(indices: range, pixels: int, seed: int) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    scenes: list[Scene] = []
    for i in indices:
        rng = Random(f"pretraining {seed} {i}")
        scene = sample_scene(rng, 1, 4)
        scenes += [scene, twin(scene, rng)]
    size = (pixels, pixels)
    images = [draw_scene(s, SCENE_PIXELS).resize(size, Image.Resampling.BICUBIC) for s in scenes]
    return (
        scenes,
        np.stack([np.asarray(i) for i in images]),
        np.stack([np.asarray(draw_masks(s, pixels)) for s in scenes]),
    )


def sample_batch(
    pool: tuple[list[Scene], np.ndarray, np.ndarray],
    size: int,
    grid: int,
    rng: Random,
    twins: bool,
    caption: Callable[[Scene, Random], str],
    regions_per_scene: int = 2,
) -> Batch:
    """A batch of scenes; with ``twins`` half of them are the other half's twins, turned the same way."""
    scenes, images, maps = pool
    first = [2 * k for k in rng.sample(range(len(scenes) // 2), size // 2 if twins else size)]
    chosen = [
        (k + t, turn)
        for k in first
        for turn in [(rng.randrange(4), rng.random() < 0.5)]
        for t in (range(2) if twins else (rng.randrange(2),))
    ]
    out_images, out_captions, regions, region_scene, phrases = [], [], [], [], []
    for b, (k, turn) in enumerate(chosen):
        scene = turned(scenes[k], *turn)
        out_images.append(_turn(images[k], *turn))
        out_captions.append(caption(scene, rng))
        seen = truth(scene)
        objects = _turn(maps[k], *turn)
        for s in rng.sample(seen, min(regions_per_scene, len(seen))):
            regions.append(_coverage(objects == s.index + 1, grid))
            region_scene.append(b)
            phrases.append(phrase(s, seen, rng))
    return Batch(np.stack(out_images), out_captions, np.stack(regions), np.array(region_scene), phrases)


def any_caption(scene: Scene, rng: Random) -> str:
    """A caption of any kind."""
    return rng.choice(captions(scene, 5, rng))


def list_caption(scene: Scene, rng: Random) -> str:
    """The caption that lists every object: what plain caption matching learns from."""
    return captions(scene, 1, rng)[0]


def _turn(array: np.ndarray, quarter_turns: int, mirrored: bool) -> np.ndarray:
    return np.rot90(array[:, ::-1] if mirrored else array, quarter_turns)


def _coverage(mask: np.ndarray, grid: int) -> np.ndarray:
    cell = mask.shape[0] // grid
    return mask.reshape(grid, cell, grid, cell).mean((1, 3), dtype=np.float32)
