"""A pool of drawn scenes, and the batches that pre-training takes from it.

Every scene stands beside its twin, which differs in one attribute or in the places of two objects. Batches turn and
mirror the scenes (their words follow), so a pool of n scenes shows 8·n pictures.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
from PIL import Image

from clipmapper.data.shapes.captions import captions
from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import Scene, Seen, sample_scene, truth, turned, twin

SCENE_PIXELS = 128
CAPTION_KINDS = 5


@dataclass(frozen=True)
class Pool:
    """``scenes`` in pairs (a scene, its twin), ``images`` uint8 [n, P, P, 3] and object ``maps`` uint8 [n, P, P]."""

    scenes: list[Scene]
    images: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [B, P, P, 3], ``maps`` uint8 [B, P, P], what is in each scene, and a caption each."""

    images: np.ndarray
    maps: np.ndarray
    seen: list[tuple[Seen, ...]]
    captions: list[str]


def draw_pool(count: int, pixels: int, seed: int, workers: int) -> Pool:
    """``count`` scenes (an even number), half of them twins of the other half; the same for a seed."""
    chunks = [range(i, min(i + 250, count // 2)) for i in range(0, count // 2, 250)]
    with ProcessPoolExecutor(workers) as processes:
        parts = list(processes.map(partial(_draw_pairs, pixels=pixels, seed=seed), chunks))
    scenes = [scene for part in parts for scene in part.scenes]
    return Pool(scenes, np.concatenate([p.images for p in parts]), np.concatenate([p.maps for p in parts]))


def sample_batch(pool: Pool, size: int, twins: bool, caption_kinds: int, rng: Random) -> Batch:
    """``size`` scenes; with ``twins`` one half of them are the other half's, turned the same way.

    Captions are of the first ``caption_kinds`` kinds (1: the list of all objects, nothing else).
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
            texts.append(rng.choice(captions(scene, CAPTION_KINDS, rng)[:caption_kinds]))
    return Batch(np.stack(images), np.stack(maps), seen, texts)


def turn_array(array: np.ndarray, quarter_turns: int, mirrored: bool) -> np.ndarray:
    """A picture [P, P, …] turned as :func:`clipmapper.data.shapes.scene.turned` turns its scene."""
    return np.rot90(array[:, ::-1] if mirrored else array, quarter_turns)


def _draw_pairs(indices: range, pixels: int, seed: int) -> Pool:
    scenes: list[Scene] = []
    for i in indices:
        rng = Random(f"pretraining {seed} {i}")
        scene = sample_scene(rng, 1, 4)
        scenes += [scene, twin(scene, rng)]
    size = (pixels, pixels)
    pictures = [np.asarray(draw_scene(s, SCENE_PIXELS).resize(size, Image.Resampling.BICUBIC)) for s in scenes]
    return Pool(scenes, np.stack(pictures), np.stack([np.asarray(draw_masks(s, pixels)) for s in scenes]))
