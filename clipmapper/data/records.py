"""The data types that all readers return: questions, image sources, and splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from clipmapper.errors import UserError


class ImageSource(Protocol):
    """A source of one encoded image, such as a file of an image folder or a cell of a Parquet file."""

    @property
    def name(self) -> str:
        """Name of the image in messages: a path, or ``file.parquet, row 7``."""

    def read(self) -> bytes:
        """Return the encoded image (JPEG, PNG, …).

        Raises:
            UserError: The image is missing.
        """


class ImageMap(Mapping[int, ImageSource]):
    """Images by id, each of which is made when it is asked for: as objects, those of VQAv2 would take 60 MB.

    Args:
        ids: Ids of the images, int64 [n], ascending, each once.
        owners: Which of the sources has each image, [n].
        sources: Functions that return the image of an id.
    """

    def __init__(self, ids: np.ndarray, owners: np.ndarray, sources: Sequence[Callable[[int], ImageSource]]):
        self.ids, self.owners, self.sources = ids, owners, tuple(sources)

    @classmethod
    def of(cls, images: Mapping[int, ImageSource]) -> ImageMap:
        """Return images as a map of this kind."""
        if isinstance(images, cls):
            return images
        ids = np.array(sorted(images), np.int64)
        return cls(ids, np.zeros(len(ids), np.uint8), [images.__getitem__])

    @classmethod
    def joined(cls, parts: Iterable[Mapping[int, ImageSource]]) -> ImageMap:
        """Return the images of several parts; the last part that has an image gives it."""
        maps = [cls.of(part) for part in parts][::-1]
        before = np.cumsum([0, *(len(each.sources) for each in maps)])
        owners = [each.owners + np.int64(start) for each, start in zip(maps, before[:-1], strict=True)]
        ids, first = np.unique(np.concatenate([each.ids for each in maps]), return_index=True)
        return cls(ids, np.concatenate(owners)[first], [source for each in maps for source in each.sources])

    def only(self, ids: np.ndarray) -> ImageMap:
        """Return the images with these ids, which must be in the map; an id may occur several times."""
        found = np.unique(ids)
        return ImageMap(found, self.owners[np.searchsorted(self.ids, found)], self.sources)

    def __getitem__(self, image_id: int) -> ImageSource:
        place = int(np.searchsorted(self.ids, image_id))
        if place == len(self.ids) or self.ids[place] != image_id:
            raise KeyError(image_id)
        return self.sources[int(self.owners[place])](image_id)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Question:
    """A VQA question with the fields of VQAv2's official JSON.

    ``answers`` contains the ten human answers as ``{"answer", "answer_id", ...}``. In a split without annotations,
    ``answers`` and the three fields after it are empty.
    """

    question_id: int
    image_id: int
    question: str
    answers: tuple[Mapping[str, object], ...] = ()
    multiple_choice_answer: str = ""
    answer_type: str = ""
    question_type: str = ""


@dataclass(frozen=True)
class VQAData:
    """The questions of a split, and their images by image id (several questions can share an image).

    What readers return has the questions as a :class:`~clipmapper.data.question_table.Questions`.
    """

    questions: Sequence[Question]
    images: Mapping[int, ImageSource]

    @property
    def sources(self) -> Mapping[int, ImageSource]:
        """The images by image id."""
        return self.images


class _HasImages(Protocol):
    @property
    def sources(self) -> Mapping[int, ImageSource]: ...


Part = TypeVar("Part", bound=_HasImages)


@dataclass(frozen=True)
class Splits(Generic[Part]):
    """The splits of a dataset.

    ``val`` is used to select checkpoints; ``test`` is used for evaluation only. ``test`` is None for data without a
    test split.
    """

    train: Part
    val: Part
    test: Part | None

    @property
    def parts(self) -> dict[str, Part]:
        """The existing parts by name: train, val and, if there is one, test."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def images(self) -> ImageMap:
        """All images of all parts by image id."""
        return ImageMap.joined(part.sources for part in self.parts.values())

    def part(self, name: str) -> Part:
        """Return the part with this name.

        Raises:
            UserError: The data has no such part.
        """
        if name not in self.parts:
            raise UserError(f"split={name}: this data has {', '.join(self.parts)}")
        return self.parts[name]
