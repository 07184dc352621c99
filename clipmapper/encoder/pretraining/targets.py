"""Training targets of patches (attributes and relations of the objects they show), and prompts for the same values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from clipmapper.data.shapes.captions import opening
from clipmapper.data.shapes.language import NOUNS, RELATIONS, WORDINGS, holds
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, Seen

PLACES = ("top left", "top right", "bottom left", "bottom right")
NEIGHBOURS = (*COLORS, *SHAPES)
# The attributes to predict from a patch; background patches have the shape "background" and no other attribute.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": (*SHAPES, "background"),
    "size": SIZES,
    "place": PLACES,
}
RELATED = tuple((relation, neighbour) for relation in RELATIONS for neighbour in NEIGHBOURS)
CLEAR = 0.03  # a relation counts if it holds by more than this share of the image's width
ABSENT = -100  # the index that torch's cross-entropy ignores


@dataclass(frozen=True)
class PatchTargets:
    """The targets of R patches of a batch."""

    #: Number of the image in the batch, [R].
    image: Tensor
    #: Number of the patch in its image, [R].
    patch: Tensor
    #: Index of the value of each of ``ATTRIBUTES``, or ``ABSENT``, [R, 4].
    attributes: Tensor
    #: Which of ``RELATED`` hold for the object, 0 or 1, [R, 88].
    related: Tensor
    #: Whether the patch shows an object (otherwise the background), bool [R].
    is_object: Tensor


def patch_targets(scenes: Sequence[Sequence[Seen]], maps: np.ndarray, grid: int, rng: Random) -> PatchTargets:
    """Return the targets of all patches with a large part of an object, and of two background patches per image.

    Args:
        scenes: The objects of each scene.
        maps: uint8 [B, P, P], 0 for background and i + 1 for object i.
        grid: Number of patches per side.
        rng: Source of random numbers for the choice of background patches.
    """
    where, attributes, related = [], [], []
    for b, (seen, objects) in enumerate(zip(scenes, maps, strict=True)):
        empty = np.flatnonzero(coverage(objects > 0, grid) == 0).tolist()
        for patch in rng.sample(empty, min(2, len(empty))):
            where.append((b, patch))
            attributes.append((ABSENT, len(SHAPES), ABSENT, ABSENT))
            related.append(np.zeros(len(RELATED), np.float32))
        for s in seen:
            covered = coverage(objects == s.index + 1, grid)
            holding = _relation_targets(s, seen)
            for patch in np.flatnonzero(covered > min(0.3, 0.8 * covered.max())).tolist():
                where.append((b, patch))
                attributes.append(_attribute_indices(s))
                related.append(holding)
    places, named = torch.tensor(where), torch.tensor(attributes)
    return PatchTargets(places[:, 0], places[:, 1], named, torch.from_numpy(np.stack(related)), named[:, 0] != ABSENT)


def attribute_prompts(rng: Random) -> list[str]:
    """Return one prompt with a random wording for every value of every attribute, in the order of ``ATTRIBUTES``."""
    wording = {
        "color": lambda value: f"{value} {rng.choice(NOUNS)}",
        "shape": lambda value: value,
        "size": lambda value: f"{value} {rng.choice(NOUNS)}",
        "place": lambda value: f"{rng.choice(NOUNS)} in the {value}",
    }
    return [f"{opening(rng)}{wording[name](value)}" for name, values in ATTRIBUTES.items() for value in values]


def relation_prompts(rng: Random) -> list[str]:
    """Return one prompt with a random wording for each of ``RELATED``, such as ``the object left of the red thing``."""
    return [
        f"{opening(rng)}{rng.choice(NOUNS)} {rng.choice(WORDINGS[relation])} the "
        f"{neighbour if neighbour in SHAPES else f'{neighbour} {rng.choice(NOUNS)}'}"
        for relation, neighbour in RELATED
    ]


def coverage(mask: np.ndarray, grid: int) -> np.ndarray:
    """Return the share of each patch that is inside a mask: [P, P] → [grid²]."""
    cell = mask.shape[0] // grid
    return mask.reshape(grid, cell, grid, cell).mean((1, 3), dtype=np.float32).ravel()


def _attribute_indices(s: Seen) -> tuple[int, int, int, int]:
    place = 2 * (s.y >= 0.5) + (s.x >= 0.5)
    return tuple(COLORS).index(s.color), SHAPES.index(s.shape), SIZES.index(s.size), place


def _relation_targets(s: Seen, seen: Sequence[Seen]) -> np.ndarray:
    found = np.zeros((len(RELATIONS), len(NEIGHBOURS)), np.float32)
    for other in seen:
        for r, relation in enumerate(RELATIONS):
            if other is not s and holds(relation, s, other, CLEAR):
                found[r, NEIGHBOURS.index(other.color)] = found[r, NEIGHBOURS.index(other.shape)] = 1
    return found.ravel()
