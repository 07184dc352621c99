"""Ground truth for explanations of ``shapes``: the patches and the sub-words that the answer to a question depends on.

It comes from the side file and the masks that ``clipmapper.data.shapes.write`` puts beside the pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipmapper.config.schema import DataConfig, ShapesConfig
from clipmapper.data.shapes.write import LAYOUT, SPLITS, write_shapes
from clipmapper.errors import UserError
from clipmapper.files import read_json

Mask = NDArray[np.bool_]
Span = tuple[int, int]


@dataclass(frozen=True)
class Evidence:
    """What an answer depends on: objects of the scene by index, and [start, end) characters of the question."""

    objects: tuple[int, ...]
    words: tuple[Span, ...]


@dataclass(frozen=True)
class SplitEvidence:
    """A split's evidence by question id, and the folder of the data set, whose masks show the objects."""

    folder: Path
    split: str
    questions: Mapping[int, Evidence]

    def patches(self, question_id: int, image_id: int, grid: int, share: float) -> Mask:
        """The patches that are a question's evidence, bool [grid²], row by row: :func:`evidence_patches`."""
        return self.object_patches(image_id, self.questions[question_id].objects, grid, share)

    def object_patches(self, image_id: int, objects: Collection[int], grid: int, share: float) -> Mask:
        """The patches that show these objects of an image, bool [grid²], row by row: :func:`evidence_patches`."""
        name = LAYOUT.image.format(folder=self.split, image_id=image_id).replace("images/", "masks/", 1)
        with Image.open(self.folder / name) as mask:
            return evidence_patches(np.asarray(mask), objects, grid, share)

    def sub_words(self, question_id: int, question: str, tokenizer: Any) -> Mask:
        """The sub-words that are evidence, bool [sub-words]: those whose characters all lie in one evidence span."""
        words = self.questions[question_id].words
        spans = sub_word_spans(question, tokenizer)
        inside = [any(first <= start and end <= last for first, last in words) for start, end in spans]
        return np.array(inside, np.bool_)


def read_evidence(config: DataConfig, split: str) -> SplitEvidence:
    """The evidence of a split; the data set is written first where it isn't there.

    Raises ``UserError`` where the data is not ``shapes``, has no such split, or the side file is missing or damaged.
    """
    if not isinstance(config, ShapesConfig):
        raise UserError(f"data={config.name} does not say what its answers depend on: give data=shapes, which does")
    if split not in SPLITS:
        raise UserError(f"split={split}: data=shapes has evidence for {', '.join(SPLITS)}")
    folder = write_shapes(config)
    path = folder / f"shapes_{split}_evidence.json"
    mend = f"remove {folder}, so that data=shapes is drawn anew"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {mend}")
    content = read_json(path)
    try:
        found = {int(name): _evidence(entry) for name, entry in content["questions"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the evidence of a split ({type(error).__name__}: {error}); {mend}") from error
    return SplitEvidence(folder, split, found)


def _evidence(entry: Mapping[str, Any]) -> Evidence:
    words = tuple((int(start), int(end)) for start, end in entry["words"])
    return Evidence(tuple(int(number) for number in entry["objects"]), words)


def evidence_patches(mask: NDArray[np.uint8], objects: Collection[int], grid: int, share: float) -> Mask:
    """The patches of which at least ``share`` of the area shows one of the objects, bool [grid²].

    ``mask`` [S, S]: 0 is background, i + 1 is object i. A square scene is scaled to the encoder's size without a crop,
    so its patches are the cells of a grid over the mask; a pixel on the border of two cells counts in both by its area.
    """
    shown = np.isin(mask, [number + 1 for number in objects])
    lengths = _overlaps(len(mask), grid)
    covered = lengths @ shown @ lengths.T
    return (covered >= share - 1e-9).ravel()  # less what rounding takes from a share that is met exactly


def _overlaps(pixels: int, grid: int) -> NDArray[np.float64]:
    """The share of each of ``grid`` cells' side that each pixel makes up, [grid, pixels]."""
    edges = np.arange(grid + 1) * pixels / grid
    left = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return np.clip(overlap, 0, None) * grid / pixels


def sub_word_spans(text: str, tokenizer: Any) -> list[Span]:
    """Where each sub-word of open_clip's BPE stands in a text: [start, end) characters, start and end tokens left out.

    CLIP lower-cases the text and its sub-words keep no blanks, so that together they are the text's other characters
    in their order. A sub-word may be some bytes of a character; then the whole character is its span.

    Raises ``UserError`` where cleaning changed more than case and blanks (HTML entities, mended encodings).
    """
    pieces = [sub_word_bytes(number, tokenizer) for number in tokenizer.encode(text)]
    written = list(_bytes_of(text))
    if b"".join(pieces) != bytes(value for value, _ in written):
        raise UserError(f"question {text!r}: its sub-words are not its own characters; write it without special ones")
    return list(_spans(pieces, [place for _, place in written]))


def sub_word_bytes(number: int, tokenizer: Any) -> bytes:
    """The UTF-8 bytes of a token of open_clip's BPE, without its mark for the end of a word."""
    written = tokenizer.decoder[number].removesuffix("</w>")
    return bytes(tokenizer.byte_decoder[character] for character in written)


def _bytes_of(text: str) -> Iterator[tuple[int, int]]:
    """Every byte of the lower-cased text without blanks, with the place of its character."""
    for place, character in enumerate(text):
        if not character.isspace():
            yield from ((value, place) for value in character.lower().encode("utf-8"))


def _spans(pieces: Sequence[bytes], places: Sequence[int]) -> Iterator[Span]:
    at = 0
    for piece in pieces:
        yield places[at], places[at + len(piece) - 1] + 1
        at += len(piece)
