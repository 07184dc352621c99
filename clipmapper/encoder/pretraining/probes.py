"""Tests of the information in an encoder's tokens: zero-shot classification, and linear probes of the patch tokens.

They use scenes that are not part of the pre-training. Zero-shot classification compares the class token of an image of
one object with one prompt for each attribute value, in CLIP's shared space. The probes are ridge regressions from a
patch token to the attributes of the object in the patch, to the color and shape of the nearest other object, and to
statements whether something of a given color or shape is left of, right of, above or below the object. The result for
the statements is the mean of their balanced accuracies (chance: 0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import COLORS, SHAPES, Scene, Seen, sample_scene, truth
from clipmapper.encoder.load import FrozenClip
from clipmapper.encoder.pretraining.pool import SCENE_PIXELS
from clipmapper.encoder.pretraining.targets import ATTRIBUTES, patch_targets
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded

_PROMPTS = {"color": "a {} shape", "shape": "a {}", "size": "a {} shape", "place": "a shape in the {}"}
_RIDGE = 10.0


def probe(weights: dict[str, Tensor], scenes: int, seed: int = 1) -> dict[str, float]:
    """Return the accuracies of zero-shot classification and of the linear probes by name, in 0..1.

    Args:
        weights: State dict of the embedded open_clip model.
        scenes: Number of scenes for the linear probes, of which a quarter is held out; zero-shot classification uses a
            third of this number.
        seed: Seed of the scenes.
    """
    encoder = _encoder(weights)
    return {**zero_shot(encoder, scenes // 3, seed), **linear_probes(encoder, scenes, seed)}


@torch.inference_mode()
def tokens(encoder: FrozenClip, scenes: list[Scene]) -> Tensor:
    """Return the encoder's tokens of the scenes' images, with the class token first, [B, 1 + P, D]."""
    parts = []
    for start in range(0, len(scenes), 128):
        images: list[Image.Image] = [draw_scene(scene, SCENE_PIXELS) for scene in scenes[start : start + 128]]
        parts.append(encoder.vision(encoder.pixels(images)).features)
    return torch.cat(parts)


@torch.inference_mode()
def pooled(encoder: FrozenClip, scenes: list[Scene]) -> Tensor:
    """Return the embeddings of the scenes' images in the shared space, [B, E]."""
    return tokens(encoder, scenes)[:, 0] @ encoder.vision.visual.proj


def zero_shot(
    encoder: FrozenClip, scenes: int, seed: int, embeddings_of: Callable[[FrozenClip, list[Scene]], Tensor] = pooled
) -> dict[str, float]:
    """Return, for each attribute, the share of one-object images whose most similar prompt has the right value."""
    drawn = [sample_scene(Random(f"zero-shot {seed} {i}"), 1, 1) for i in range(scenes)]
    image = F.normalize(embeddings_of(encoder, drawn), dim=-1)
    found = {}
    for name, values in ATTRIBUTES.items():
        values = tuple(value for value in values if value != "background")
        batch = encoder.tokenize([_PROMPTS[name].format(value) for value in values])
        with torch.inference_mode():
            text = F.normalize(encoder.text.pooled(encoder.text(batch.ids, batch.valid)), dim=-1)
        answers = [values[i] for i in (image @ text.T).argmax(1).tolist()]
        right = [a == _value(name, truth(scene)[0]) for a, scene in zip(answers, drawn, strict=True)]
        found[f"zero-shot {name}"] = float(np.mean(right))
    return found


def linear_probes(
    encoder: FrozenClip, scenes: int, seed: int, tokens_of: Callable[[FrozenClip, list[Scene]], Tensor] = tokens
) -> dict[str, float]:
    """Return the accuracies of ridge regressions from single patch tokens, on held-out scenes."""
    drawn = [sample_scene(Random(f"probe {seed} {i}")) for i in range(scenes)]
    pixels = int(encoder.vision.visual.image_size[0])
    maps = np.stack([np.asarray(draw_masks(scene, pixels)) for scene in drawn])
    seen = [truth(scene) for scene in drawn]
    grid = int(encoder.vision.visual.grid_size[0])
    targets = patch_targets(seen, maps, grid, Random(seed))
    keep = targets.is_object
    x = tokens_of(encoder, drawn)[targets.image, 1 + targets.patch][keep]
    held_out = targets.image[keep] >= scenes * 3 // 4
    found = {}
    for k, (name, values) in enumerate(ATTRIBUTES.items()):
        answers = _ridge(x, F.one_hot(targets.attributes[keep, k], len(values)).float(), held_out).argmax(1)
        found[f"probe {name}"] = float((answers == targets.attributes[keep, k][held_out]).float().mean())
    nearest = [
        _nearest(seen[b], maps[b], p, grid)
        for b, p in zip(targets.image[keep].tolist(), targets.patch[keep].tolist(), strict=True)
    ]
    for name, values in (("color", tuple(COLORS)), ("shape", SHAPES)):
        labels = torch.tensor([values.index(getattr(s, name)) for s in nearest])
        answers = _ridge(x, F.one_hot(labels, len(values)).float(), held_out).argmax(1)
        found[f"probe nearest {name}"] = float((answers == labels[held_out]).float().mean())
    found["probe relations"] = _balanced_accuracy(
        _ridge(x, targets.related[keep], held_out), targets.related[keep], held_out
    )
    return found


def _ridge(x: Tensor, y: Tensor, held_out: Tensor) -> Tensor:
    """Fit a ridge regression on the rows that are not held out, and return its predictions for the held-out rows."""
    mean, std = x[~held_out].mean(0), x[~held_out].std(0) + 1e-6
    z = torch.cat([(x - mean) / std, torch.ones(len(x), 1)], 1).double()
    fit = z[~held_out]
    weights = torch.linalg.solve(fit.T @ fit + _RIDGE * torch.eye(z.shape[1]), fit.T @ y[~held_out].double())
    return (z[held_out] @ weights).float()


def _balanced_accuracy(scores: Tensor, related: Tensor, held_out: Tensor) -> float:
    """Return the mean over the statements of (true positive rate + true negative rate) / 2.

    The threshold of the scores is the share of true training rows of each statement.
    """
    true = related[held_out] > 0
    said = scores > related[~held_out].mean(0)
    positive = (said & true).sum(0) / true.sum(0).clamp(min=1)
    negative = (~said & ~true).sum(0) / (~true).sum(0).clamp(min=1)
    return float((positive + negative).mean() / 2)


def _nearest(seen: tuple[Seen, ...], objects: np.ndarray, patch: int, grid: int) -> Seen:
    """Return the object that is nearest to the object with the largest area in a patch."""
    cell = objects.shape[0] // grid
    row, column = divmod(patch, grid)
    inside = objects[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
    own = seen[int(np.bincount(inside[inside > 0]).argmax()) - 1]
    return min((s for s in seen if s is not own), key=lambda s: (s.x - own.x) ** 2 + (s.y - own.y) ** 2)


def _value(name: str, seen: Seen) -> str:
    if name == "place":
        return ATTRIBUTES["place"][2 * (seen.y >= 0.5) + (seen.x >= 0.5)]
    return str({"color": seen.color, "shape": seen.shape, "size": seen.size}[name])


def _encoder(weights: dict[str, Tensor]) -> FrozenClip:
    register_embedded()
    model = open_clip.create_model(EMBEDDED_MODEL)
    model.load_state_dict(weights)
    return FrozenClip.of(model, EMBEDDED_MODEL)
