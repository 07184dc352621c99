"""Which words of a caption of ``shapes`` stand for which objects, and so on which patches their evidence lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from clipmapper.config.schema import DataConfig, ShapesConfig
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
_FILLERS = ("to", "the", "of", "than")  # a relation's words that do not say where


@dataclass(frozen=True, slots=True)
class NamedObjects:
    """The place of a word in its caption, what it says, and the indices of the objects it says that of."""

    word: int
    kind: Kind
    objects: tuple[int, ...]


def named_objects(words: Sequence[str], scene: KnownScene) -> list[NamedObjects]:
    """The words of a caption whose objects the scene decides, in their order; of a caption that is not true, none.

    ``words`` are those of ``captioning.sentence.split_words``, punctuation apart. "a circle" in a scene of two circles
    is left out unless the rest of the caption says which; "two circles" means both. A position is a word of a place
    ("top", "left"), of one object, or the word of a relation that says where ("left" in "to the left of"), of the two
    objects on its sides. Where annotators may see a scene differently, a word counts if all ways in which the caption
    is true mean the same objects.
    """
    caption = " ".join(words)
    verdict = check_caption(caption, scene)
    if not verdict.true:
        return []
    spans = list(_spans(words))
    found = []
    for naming in verdict.words:
        if naming.objects and len(naming.objects) == _meant(naming, verdict.claims, caption):
            inside = [k for k, (start, end) in enumerate(spans) if naming.span[0] <= start and end <= naming.span[1]]
            telling = [k for k in inside if naming.kind != "relation" or words[k].lower() not in _FILLERS]
            found += [NamedObjects(k, _KINDS[naming.kind], naming.objects) for k in telling]
    return found


def _spans(words: Sequence[str]) -> Iterator[Span]:
    start = 0
    for word in words:
        yield start, start + len(word)
        start += len(word) + 1


def _meant(naming: NamingWord, claims: Sequence[Claim], caption: str) -> int:
    """How many objects a word speaks of: both sides of a relation, the number of a phrase that has one, else one."""
    if naming.kind == "relation":
        return 2
    for claim in claims:
        if claim.kind == "count" and claim.span[0] <= naming.span[0] < claim.span[1]:
            return NUMBERS.index(caption[slice(*claim.span)].split()[0].lower())
    return 1


def read_scenes(evidence: SplitEvidence) -> dict[int, KnownScene]:
    """The scenes of a split by image id; raises ``UserError`` where the side file is missing or damaged."""
    path = evidence.folder / f"shapes_{evidence.split}_evidence.json"
    try:
        return {int(image_id): scene_from_side_file(entry) for image_id, entry in read_json(path)["scenes"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: holds no scenes ({error}); remove {evidence.folder}, it is drawn anew") from error


def caption_judge(config: DataConfig, split: str) -> Callable[[int, str], bool] | None:
    """Says of an image id and any caption whether it is true of the scene; None for data that don't know.

    Raises ``UserError`` as ``read_evidence`` and :func:`read_scenes`.
    """
    if not isinstance(config, ShapesConfig):
        return None
    scenes = read_scenes(read_evidence(config, split))
    return lambda image_id, caption: check_caption(caption, scenes[image_id]).true
