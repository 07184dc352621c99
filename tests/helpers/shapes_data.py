"""A small ``shapes`` dataset on disk, which is generated once for all tests that read it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from schemas import values

from clipmapper.config.data import ShapesConfig
from clipmapper.data.shapes.caption_truth import KnownScene
from clipmapper.data.shapes.scene import Background, Seen
from clipmapper.data.shapes.write import SPLITS, write_shapes

DARK = Background("dark", "striped", (30, 30, 30), 0)
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def shapes_config(root: Path, **changes: Any) -> ShapesConfig:
    """Return a config of a few small scenes, with ``changes`` to any field."""
    fields: dict[str, Any] = {
        **values("data/shapes"),
        "root": str(root),
        "train_scenes": 8,
        "val_scenes": 4,
        "test_scenes": 4,
        "questions_per_scene": 6,
        "pixels": 32,
        "workers": 1,
    }
    return ShapesConfig(**{**fields, **changes})


def write_all(config: ShapesConfig) -> Path:
    """Write all splits and return the folder of the dataset."""
    for split in SPLITS:
        folder = write_shapes(config, split)
    return folder


@cache
def written_shapes() -> Path:
    """Return the folder of a dataset with 400 training scenes of 6 questions each; tests must not change its files."""
    _KEPT.append(tempfile.TemporaryDirectory())
    return write_all(shapes_config(Path(_KEPT[0].name), train_scenes=400))


@dataclass(frozen=True)
class Asked:
    """A question read from the files, with its annotation, its evidence, and the objects of its scene."""

    kind: str
    text: str
    annotation: dict[str, Any]
    evidence: dict[str, Any]
    objects: list[dict[str, Any]]

    @property
    def answers(self) -> list[str]:
        return [answer["answer"] for answer in self.annotation["answers"]]

    @property
    def answer(self) -> str:
        return str(self.annotation["multiple_choice_answer"])

    @property
    def is_clear(self) -> bool:
        """Whether no attribute of any object in the scene is ambiguous."""
        return not any(o[name]["doubt"] for o in self.objects for name in ("shape", "color", "size"))


@cache
def asked() -> tuple[Asked, ...]:
    """Return all training questions."""
    return tuple(_asked(written_shapes(), "train"))


def scene_from_seen(seen: Sequence[Seen], background: Background = DARK) -> KnownScene:
    """Return a scene without ambiguous attributes for the check of captions; ``seen[i].index`` must be i."""
    return KnownScene((tuple(seen),), background.tone, background.texture)


def known(*objects: tuple[str, str, str, float, float], background: Background = DARK) -> KnownScene:
    """Return a scene for the check of captions; each object is given as size, color, shape, x and y."""
    seen = [Seen(i, shape, color, size, x, y) for i, (size, color, shape, x, y) in enumerate(objects)]
    return scene_from_seen(seen, background)


def load(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _asked(folder: Path, split: str) -> Iterator[Asked]:
    side = load(folder, f"shapes_{split}_evidence.json")
    questions = load(folder, f"v2_OpenEnded_shapes_{split}_questions.json")["questions"]
    annotations = load(folder, f"v2_shapes_{split}_annotations.json")["annotations"]
    for question, annotation in zip(questions, annotations, strict=True):
        assert question["question_id"] == annotation["question_id"]
        evidence = side["questions"][str(question["question_id"])]
        objects = side["scenes"][str(question["image_id"])]["objects"]
        yield Asked(annotation["question_type"], question["question"], annotation, evidence, objects)
