"""A pool of drawn scenes, and the batches that are sampled from it for pre-training.

The pool consists of pairs of a scene and its twin, which differs in one attribute or in the positions of two objects.
The scenes of a batch are turned and mirrored, with captions that fit the result, so a pool of n scenes has 8·n images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
from PIL import Image

from clipmapper.console import progress
from clipmapper.data.shapes.captions import captions
from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import Scene, Seen, sample_scene, truth, turned, twin
from clipmapper.process.workers import pool

SCENE_PIXELS = 128
CAPTION_KINDS = 5


@dataclass(frozen=True)
class Pool:
    """A pool of n drawn scenes."""

    #: Scenes in pairs: a scene, then its twin.
    scenes: list[Scene]
    #: uint8 [n, P, P, 3].
    images: np.ndarray
    #: uint8 [n, P, P]: 0 is background, i + 1 is object i.
    maps: np.ndarray


@dataclass(frozen=True)
class Batch:
    """A batch of B scenes."""

    #: uint8 [B, P, P, 3].
    images: np.ndarray
    #: uint8 [B, P, P]: 0 is background, i + 1 is object i.
    maps: np.ndarray
    #: The objects of each scene.
    seen: list[tuple[Seen, ...]]
    #: One caption for each scene.
    captions: list[str]


def draw_pool(count: int, pixels: int, seed: int, workers: int) -> Pool:
    """Draw a pool of ``count`` scenes (an even number), half of which are twins of the other half.

    The pool depends on the seed, but not on the number of workers.
    """
    chunks = [range(i, min(i + 250, count // 2)) for i in range(0, count // 2, 250)]
    parts = []
    with pool(workers) as processes, progress(count, "drawing", "scenes") as advance:
        for part in processes.map(partial(_draw_pairs, pixels=pixels, seed=seed), chunks):
            parts.append(part)
            advance(len(part.scenes))
    scenes = [scene for part in parts for scene in part.scenes]
    return Pool(scenes, np.concatenate([p.images for p in parts]), np.concatenate([p.maps for p in parts]))


def sample_batch(pool: Pool, size: int, twins: bool, caption_kinds: int, rng: Random) -> Batch:
    """Sample a batch from a pool.

    Args:
        pool: The pool.
        size: Number of scenes B.
        twins: Sample pairs of a scene and its twin, turned in the same way. Otherwise one scene of each pair is
            sampled.
        caption_kinds: Captions are of the first ``caption_kinds`` kinds; with 1 they only list all objects.
        rng: Source of random numbers.
    """
    pairs = rng.sample(range(len(pool.scenes) // 2), size // 2 if twins else size)
    images, maps, seen, texts = [], [], [], []
    for pair in pairs:
        turn = (rng.randrange(4), rng.random() < 0.5)
        for k in (2 * pair, 2 * pair + 1) if twins else (2 * pair + rng.randrange(2),):
            scene = turned(pool.scenes[k], *turn)
            images.append(turn_array(pool.images[k], *turn))
            maps.append(turn_array(pool.maps[k], *turn))
            seen.append(truth(scene))
            texts.append(rng.choice(captions(scene, CAPTION_KINDS, rng, clear_places=False)[:caption_kinds]))
    return Batch(np.stack(images), np.stack(maps), seen, texts)


def turn_array(array: np.ndarray, quarter_turns: int, mirrored: bool) -> np.ndarray:
    """Turn an image [P, P, …] in the same way as :func:`clipmapper.data.shapes.scene.turned` turns its scene."""
    return np.rot90(array[:, ::-1] if mirrored else array, quarter_turns)


def _draw_pairs(indices: range, pixels: int, seed: int) -> Pool:
    scenes: list[Scene] = []
    for i in indices:
        rng = Random(f"pretraining {seed} {i}")
        scene = sample_scene(rng, 1, 4)
        scenes += [scene, twin(scene, rng)]
    size = (pixels, pixels)
    images = [np.asarray(draw_scene(s, SCENE_PIXELS).resize(size, Image.Resampling.BICUBIC)) for s in scenes]
    return Pool(scenes, np.stack(images), np.stack([np.asarray(draw_masks(s, pixels)) for s in scenes]))
