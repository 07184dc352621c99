"""Ground truth for explanations of ``shapes``: the patches and sub-words that the answer to a question depends on.

It is read from the evidence file and the masks that :mod:`clipmapper.data.shapes.write` writes next to the images.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy.ndimage import binary_fill_holes
from typing_extensions import TypedDict

from clipmapper.config.data import DataConfig, ShapesConfig
from clipmapper.data.shapes.write import EVIDENCE, LAYOUT, SPLITS, write_shapes
from clipmapper.errors import UserError
from clipmapper.files import read_bytes, read_json
from clipmapper.storage.validation import check
from explain.sample.image import verify_png

Mask = NDArray[np.bool_]
Span = tuple[int, int]


_Place = Annotated[int, Field(ge=0, le=1 << 16)]


class EvidenceEntry(TypedDict):
    """The entry of a question: indices of objects, and [start, end) characters of words."""

    objects: list[_Place]
    words: list[Annotated[list[_Place], Field(min_length=2, max_length=2)]]


class EvidenceFile(TypedDict):
    """The evidence file of a split."""

    scenes: dict[str, dict[str, Any]]
    questions: dict[str, EvidenceEntry]


@dataclass(frozen=True)
class Evidence:
    """The objects and words that an answer depends on."""

    #: Indices of the objects in the scene.
    objects: tuple[int, ...]
    #: [start, end) characters of the question.
    words: tuple[Span, ...]


@dataclass(frozen=True)
class SplitEvidence:
    """The evidence of a split."""

    #: Folder of the dataset, whose masks show the objects.
    folder: Path
    split: str
    #: Width and height of an image.
    pixels: int
    #: Evidence by question id.
    questions: Mapping[int, Evidence]

    def patches(self, question_id: int, image_id: int, grid: int, share: float) -> Mask:
        """Return the patches that are evidence of a question, bool [grid²], row by row (:func:`evidence_patches`)."""
        return self.object_patches(image_id, self.questions[question_id].objects, grid, share)

    def object_patches(self, image_id: int, objects: Collection[int], grid: int, share: float) -> Mask:
        """Return the patches that show objects of an image, bool [grid²], row by row (:func:`evidence_patches`)."""
        return evidence_patches(self.mask(image_id), objects, grid, share)

    def mask(self, image_id: int) -> NDArray[np.uint8]:
        """Return the mask of an image, [S, S]: 0 for background and i + 1 for object i.

        Raises:
            UserError: The mask is missing, damaged, or of another kind or size than those that are written.
        """
        name = LAYOUT.image.format(folder=self.split, image_id=image_id).replace("images/", "masks/", 1)
        path, side = self.folder / name, self.pixels
        try:
            encoded = read_bytes(path, "image")
            verify_png(encoded)
            with Image.open(BytesIO(encoded)) as mask:
                if mask.size != (side, side) or mask.mode != "L":
                    columns, rows = mask.size
                    raise ValueError(f"{columns}×{rows} pixels of mode {mask.mode}, not {side}×{side} of mode L")
                return np.asarray(mask)
        except Exception as error:  # for damaged bytes, decoders raise OSError, SyntaxError, struct.error …
            missing = isinstance(error, FileNotFoundError)
            reason = "no such mask" if missing else f"not the mask of image {image_id} ({error})"
            raise UserError(
                f"{path}: {reason}; remove {self.folder}, so that data=shapes is generated again"
            ) from error

    def object_pixels(self, image_id: int, objects: Collection[int]) -> Mask:
        """Return the pixels of objects of an image, including the holes in them, bool [S, S]."""
        return np.asarray(binary_fill_holes(np.isin(self.mask(image_id), [number + 1 for number in objects])), np.bool_)

    def answer_pixels(self, question_id: int, image_id: int) -> Mask:
        """Return the pixels of the objects that an answer depends on, including the holes in them, bool [S, S]."""
        return self.object_pixels(image_id, self.questions[question_id].objects)

    def answer_words(self, question_id: int, question: str, words: Sequence[str]) -> list[bool]:
        """Return for each word of a question whether the answer depends on it.

        Args:
            question_id: The question.
            question: Its text.
            words: Words or punctuation marks of the text in their order, in any case.

        Returns:
            Empty if one of the words is not in the text.
        """
        spans, text, start = self.questions[question_id].words, question.lower(), 0
        found = []
        for word in words:
            place = text.find(word.lower(), start)
            if place < 0:
                return []
            start = place + len(word)
            found.append(any(first <= place and start <= last for first, last in spans))
        return found

    def sub_words(self, question_id: int, question: str, tokenizer: Any) -> Mask:
        """Return the sub-words whose characters are all in one evidence span of the question, bool [sub-words]."""
        words = self.questions[question_id].words
        spans = sub_word_spans(question, tokenizer)
        inside = [any(first <= start and end <= last for first, last in words) for start, end in spans]
        return np.array(inside, np.bool_)


def known_evidence(config: DataConfig, split: str) -> SplitEvidence | None:
    """Return the evidence of a split, or None for data that does not say what its answers depend on."""
    return read_evidence(config, split) if isinstance(config, ShapesConfig) else None


def read_evidence(config: DataConfig, split: str) -> SplitEvidence:
    """Read the evidence of a split; the dataset is written first if it does not exist.

    Raises:
        UserError: The data is not ``shapes``, there is no such split, or the evidence file is missing or damaged.
    """
    if not isinstance(config, ShapesConfig):
        raise UserError(f"data={config.name} does not say what its answers depend on: give data=shapes, which does")
    if split not in SPLITS:
        raise UserError(f"split={split}: data=shapes has evidence for {', '.join(SPLITS)}")
    folder = write_shapes(config, split)
    path = folder / EVIDENCE.format(split=split)
    fix = f"remove {folder}, so that data=shapes is generated again"
    content = read_json(path)
    check(EvidenceFile, content, str(path), fix)
    try:
        found = {int(name): _evidence(entry) for name, entry in content["questions"].items()}
    except ValueError as error:
        raise UserError(f"{path}: not the evidence of a split ({error}); {fix}") from error
    return SplitEvidence(folder, split, config.pixels, found)


def _evidence(entry: Mapping[str, Any]) -> Evidence:
    return Evidence(tuple(entry["objects"]), tuple((start, end) for start, end in entry["words"]))


def evidence_patches(mask: NDArray[np.uint8], objects: Collection[int], grid: int, share: float) -> Mask:
    """Return the patches of which at least ``share`` of the area shows one of the objects.

    The encoder scales a square image without cropping it, so its patches are the cells of a grid over the mask. A pixel
    on the border of two cells counts in both, by its area in each.

    Args:
        mask: [S, S], 0 for background and i + 1 for object i.
        objects: Indices of the objects.
        grid: Number of patches per side.
        share: Least share of the area, 0..1.

    Returns:
        bool [grid²], row by row.
    """
    shown = np.isin(mask, [number + 1 for number in objects])
    lengths = _overlaps(len(mask), grid)
    covered = lengths @ shown @ lengths.T
    return (covered >= share - 1e-9).ravel()  # the tolerance accepts a share that is exact except for rounding


def _overlaps(pixels: int, grid: int) -> NDArray[np.float64]:
    """Return the share of each cell's side that each pixel covers, [grid, pixels]."""
    edges = np.arange(grid + 1) * pixels / grid
    left = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], left + 1) - np.maximum(edges[:-1, None], left)
    return np.clip(overlap, 0, None) * grid / pixels


def sub_word_spans(text: str, tokenizer: Any) -> list[Span]:
    """Return the position of each sub-word of an encoder's tokenizer in a text, without the start and end tokens.

    CLIP converts the text to lower case, and its sub-words contain no white space, so the sub-words together are the
    other characters of the text in their order. SigLIP's also leave out punctuation. If a sub-word consists of only
    some bytes of a character, its span is the whole character.

    Returns:
        [start, end) in characters for each sub-word.

    Raises:
        UserError: The tokenizer changed more than case, white space and punctuation (HTML entities, repaired
            encodings).
    """
    pieces = [sub_word_bytes(number, tokenizer) for number in tokenizer.encode(text)]
    places = _places(b"".join(pieces), _bytes_of(text))
    if places is None:
        raise UserError(
            f"question {text!r}: its sub-words do not spell its characters; write it without HTML entities or "
            "broken characters"
        )
    return list(_spans(pieces, places))


def sub_word_bytes(number: int, tokenizer: Any) -> bytes:
    """Return the UTF-8 bytes of a token of open_clip's BPE, without the mark for the end of a word."""
    written = tokenizer.decoder[number].removesuffix("</w>")
    return bytes(tokenizer.byte_decoder[character] for character in written)


def _bytes_of(text: str) -> Iterator[tuple[int, int]]:
    """Yield every byte of the lower-cased text without white space, with the position of its character."""
    for place, character in enumerate(text):
        if not character.isspace():
            yield from ((value, place) for value in character.lower().encode("utf-8"))


def _places(spoken: bytes, written: Iterable[tuple[int, int]]) -> list[int] | None:
    """Return the position in the text of each byte of its sub-words; None if they differ in more than punctuation."""
    places: list[int] = []
    for value, place in written:
        if len(places) < len(spoken) and spoken[len(places)] == value:
            places.append(place)
        elif chr(value) not in string.punctuation:
            return None
    return places if len(places) == len(spoken) else None


def _spans(pieces: Sequence[bytes], places: Sequence[int]) -> Iterator[Span]:
    at = 0
    for piece in pieces:
        if not piece:  # a space of sentencepiece
            yield 0, 0
            continue
        yield places[at], places[at + len(piece) - 1] + 1
        at += len(piece)
