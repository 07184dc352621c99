"""A small ``shapes`` data set on the disk, made once for all tests that read it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from schemas import values

from clipmapper.config.schema import ShapesConfig
from clipmapper.data.shapes.caption_truth import KnownScene
from clipmapper.data.shapes.scene import Background, Seen
from clipmapper.data.shapes.write import write_shapes

DARK = Background("dark", "striped", (30, 30, 30), 0)
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def shapes_config(root: Path, **changes: Any) -> ShapesConfig:
    """A few tiny scenes; ``changes`` to any field."""
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


@cache
def written_shapes() -> Path:
    """400 training scenes with 6 questions each; nobody changes anything there."""
    _KEPT.append(tempfile.TemporaryDirectory())
    return write_shapes(shapes_config(Path(_KEPT[0].name), train_scenes=400))


@dataclass(frozen=True)
class Asked:
    """A question as the files hold it: its text, annotation, evidence, and the scene's objects."""

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
        """Nothing in the scene is ambiguous."""
        return not any(o[name]["doubt"] for o in self.objects for name in ("shape", "color", "size"))


@cache
def asked() -> tuple[Asked, ...]:
    """Every training question."""
    return tuple(_asked(written_shapes(), "train"))


def scene_from_seen(seen: Sequence[Seen], background: Background = DARK) -> KnownScene:
    """What the checker of captions knows of a scene without ambiguous attributes; ``seen[i].index`` is i."""
    return KnownScene((tuple(seen),), background.tone, background.texture)


def known(*objects: tuple[str, str, str, float, float], background: Background = DARK) -> KnownScene:
    """Objects as size, color, shape, x and y."""
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
