"""The objects that the words of a ``shapes`` caption name; their patches are the evidence of the words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from clipmapper.config.data import DataConfig, ShapesConfig
from clipmapper.data.shapes.caption_truth import (
    Claim,
    KnownScene,
    NamingWord,
    Span,
    check_caption,
    scene_from_side_file,
)
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.data.shapes.language import NUMBERS
from clipmapper.errors import UserError
from clipmapper.files import read_json

Kind = Literal["size", "color", "shape", "position"]
_KINDS: dict[str, Kind] = {
    "size": "size",
    "color": "color",
    "shape": "shape",
    "place": "position",
    "relation": "position",
}
_FILLERS = ("to", "the", "of", "than")  # the words of a relation that do not name a direction


@dataclass(frozen=True, slots=True)
class NamedObjects:
    """A word of a caption and the objects that it describes."""

    #: Position of the word in the caption.
    word: int
    kind: Kind
    #: Indices of the objects.
    objects: tuple[int, ...]


def named_objects(words: Sequence[str], scene: KnownScene) -> list[NamedObjects]:
    """Return the words of a true caption that name certain objects of the scene, in their order.

    A word is left out if it can mean different objects: "a circle" in a scene with two circles, unless the rest of the
    caption decides which one. "two circles" names both. Words of the kind "position" are the words of a place ("top",
    "left"), which describe one object, and the direction word of a relation ("left" in "to the left of"), which
    describes the objects on both sides. If annotators can see the scene differently, a word counts if the caption means
    the same objects in all ways in which it is true.

    Args:
        words: The words of the caption as :func:`clipmapper.tasks.caption.sentence.split_words` returns them, with
            punctuation as separate words.
        scene: The scene of the image.

    Returns:
        The naming words; empty for a caption that is not true.
    """
    caption = " ".join(words)
    verdict = check_caption(caption, scene)
    if not verdict.true:
        return []
    spans = list(_spans(words))
    found = []
    for naming in verdict.words:
        if naming.objects and len(naming.objects) == _expected_count(naming, verdict.claims, caption):
            inside = [k for k, (start, end) in enumerate(spans) if naming.span[0] <= start and end <= naming.span[1]]
            content = [k for k in inside if naming.kind != "relation" or words[k].lower() not in _FILLERS]
            found += [NamedObjects(k, _KINDS[naming.kind], naming.objects) for k in content]
    return found


def _spans(words: Sequence[str]) -> Iterator[Span]:
    start = 0
    for word in words:
        yield start, start + len(word)
        start += len(word) + 1


def _expected_count(naming: NamingWord, claims: Sequence[Claim], caption: str) -> int:
    """Return how many objects a word describes: 2 for a relation, the number of its phrase if it has one, else 1."""
    if naming.kind == "relation":
        return 2
    for claim in claims:
        if claim.kind == "count" and claim.span[0] <= naming.span[0] < claim.span[1]:
            return NUMBERS.index(caption[slice(*claim.span)].split()[0].lower())
    return 1


def read_scenes(evidence: SplitEvidence) -> dict[int, KnownScene]:
    """Read the scenes of a split from its evidence file.

    Returns:
        The scenes by image id.

    Raises:
        UserError: The evidence file is missing or damaged.
    """
    path = evidence.folder / f"shapes_{evidence.split}_evidence.json"
    try:
        return {int(image_id): scene_from_side_file(entry) for image_id, entry in read_json(path)["scenes"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: holds no scenes ({error}); remove {evidence.folder}, so that it is generated again"
        ) from error


def caption_judge(config: DataConfig, split: str) -> Callable[[int, str], bool] | None:
    """Return a function that decides whether a caption is true of an image, or None for data without known scenes.

    The function takes an image id and any text.

    Raises:
        UserError: The evidence of the split is missing or damaged.
    """
    if not isinstance(config, ShapesConfig):
        return None
    scenes = read_scenes(read_evidence(config, split))
    return lambda image_id, caption: check_caption(caption, scenes[image_id]).true
