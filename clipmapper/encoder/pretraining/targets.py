"""What the patches of a batch show, as numbers, and the prompts that say the same in words."""

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
# The attributes a patch is asked for; background patches have a shape of their own and no other attribute.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": (*SHAPES, "background"),
    "size": SIZES,
    "place": PLACES,
}
RELATED = tuple((relation, neighbour) for relation in RELATIONS for neighbour in NEIGHBOURS)
CLEAR = 0.03  # relations count from this share of the image's width on
ABSENT = -100  # the index that torch's cross-entropy ignores


@dataclass(frozen=True)
class PatchTargets:
    """Some patches of a batch: ``image`` and ``patch`` [R] say which, ``attributes`` [R, 4] what they show (an index of
    ``ATTRIBUTES``, or ``ABSENT``), ``related`` [R, 88] which of ``RELATED`` hold of the object, ``is_object`` [R]."""

    image: Tensor
    patch: Tensor
    attributes: Tensor
    related: Tensor
    is_object: Tensor


def patch_targets(scenes: Sequence[Sequence[Seen]], maps: np.ndarray, grid: int, rng: Random) -> PatchTargets:
    """Targets of every patch that an object covers well, and of two patches of background a picture.

    ``maps`` uint8 [B, P, P]: 0 is background, i + 1 is object i.
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
            holding = _related(s, seen)
            for patch in np.flatnonzero(covered > min(0.3, 0.8 * covered.max())).tolist():
                where.append((b, patch))
                attributes.append(_attributes(s))
                related.append(holding)
    places, named = torch.tensor(where), torch.tensor(attributes)
    return PatchTargets(places[:, 0], places[:, 1], named, torch.from_numpy(np.stack(related)), named[:, 0] != ABSENT)


def attribute_prompts(rng: Random) -> list[str]:
    """One prompt for every value of every attribute, in the order of ``ATTRIBUTES``, each worded by chance."""
    wording = {
        "color": lambda value: f"{value} {rng.choice(NOUNS)}",
        "shape": lambda value: value,
        "size": lambda value: f"{value} {rng.choice(NOUNS)}",
        "place": lambda value: f"{rng.choice(NOUNS)} in the {value}",
    }
    return [f"{opening(rng)}{wording[name](value)}" for name, values in ATTRIBUTES.items() for value in values]


def relation_prompts(rng: Random) -> list[str]:
    """One prompt for each of ``RELATED``: ``the object left of the red thing``."""
    return [
        f"{opening(rng)}{rng.choice(NOUNS)} {rng.choice(WORDINGS[relation])} the "
        f"{neighbour if neighbour in SHAPES else f'{neighbour} {rng.choice(NOUNS)}'}"
        for relation, neighbour in RELATED
    ]


def coverage(mask: np.ndarray, grid: int) -> np.ndarray:
    """The share of each patch inside a mask [P, P] → [grid²]."""
    cell = mask.shape[0] // grid
    return mask.reshape(grid, cell, grid, cell).mean((1, 3), dtype=np.float32).ravel()


def _attributes(s: Seen) -> tuple[int, int, int, int]:
    place = 2 * (s.y >= 0.5) + (s.x >= 0.5)
    return tuple(COLORS).index(s.color), SHAPES.index(s.shape), SIZES.index(s.size), place


def _related(s: Seen, seen: Sequence[Seen]) -> np.ndarray:
    found = np.zeros((len(RELATIONS), len(NEIGHBOURS)), np.float32)
    for other in seen:
        for r, relation in enumerate(RELATIONS):
            if other is not s and holds(relation, s, other, CLEAR):
                found[r, NEIGHBOURS.index(other.color)] = found[r, NEIGHBOURS.index(other.shape)] = 1
    return found.ravel()
