"""What lies between measures and models: token subsets, what a model says of them, and who reads it.

A measure names the subsets it wants; a ``Reader`` knows a model and how a token is removed from its input. Neither
knows the other, so that every measure works on every model that has a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from perturbation.arrays import Array, Mask

Modality = Literal["image", "text"]
Samples = TypeVar("Samples", contravariant=True)
Asked = TypeVar("Asked", contravariant=True)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Subsets:
    """M subsets of the tokens of each of B samples, by the tokens that stay.

    Attributes:
        image: bool [B, M, P], true where a patch stays; None where the image stays whole in all of them.
        text: bool [B, M, n_t] over the text tokens with their padding, which is not read; None as for the image.
            Where both are None, the request is for the samples as they are, M = 1.
    """

    image: Mask | None = None
    text: Mask | None = None

    @classmethod
    def only(cls, modality: Modality, kept: Mask) -> Subsets:
        """Subsets of one modality, the other whole."""
        return cls(image=kept) if modality == "image" else cls(text=kept)

    @property
    def count(self) -> int:
        """M.

        Raises:
            ValueError: image and text differ in it.
        """
        counts = {mask.shape[1] for mask in (self.image, self.text) if mask is not None} or {1}
        if len(counts) > 1:
            raise ValueError(
                f"image and text masks hold {sorted(counts)} subsets a sample: they must hold equally many"
            )
        return counts.pop()


@dataclass(frozen=True, eq=False)
class SubsetOutputs:
    """What a model says of M subsets of each of B samples.

    Attributes:
        said: str objects [B, M]: answers, or captions.
        values: [B, M] each, by name; the first is what tables look at first.
        response: the name of the value that measures of few tokens read, which must answer to small changes.
    """

    said: NDArray[np.object_]
    values: Mapping[str, Array]
    response: str

    @property
    def responses(self) -> Array:
        """The response to every subset, [B, M]."""
        return self.values[self.response]

    def part(self, places: slice) -> SubsetOutputs:
        """Some of the M subsets."""
        values = {name: value[:, places] for name, value in self.values.items()}
        return SubsetOutputs(self.said[:, places], values, self.response)


class Reader(Protocol[Samples, Asked]):
    """Reads a model on token subsets; ``samples`` are B samples in the form in which this model takes them."""

    def read(self, samples: Samples, subsets: Subsets, asked: Asked) -> SubsetOutputs:
        """What the model says of every subset, each distinct one read once.

        Args:
            samples: B samples.
            subsets: M subsets of each.
            asked: What the values are about where samples do not tell: the answers whose probability is wanted.

        Raises:
            UserError: the model cannot do without these tokens.
        """


Read = Callable[[Subsets], SubsetOutputs]  #: a reader with its samples


def read_together(read: Read, requests: Mapping[Key, Subsets]) -> dict[Key, SubsetOutputs]:
    """Reads all requests in one pass, so that a subset which several of them hold is read once."""
    if not requests:
        return {}
    counts = [subsets.count for subsets in requests.values()]
    image = _joined([subsets.image for subsets in requests.values()], counts)
    text = _joined([subsets.text for subsets in requests.values()], counts)
    outputs = read(Subsets(image, text))
    if image is None and text is None:
        return dict.fromkeys(requests, outputs)
    ends = np.cumsum(counts).tolist()
    return {key: outputs.part(slice(end - count, end)) for key, count, end in zip(requests, counts, ends, strict=True)}


def _joined(masks: Sequence[Mask | None], counts: Sequence[int]) -> Mask | None:
    """One modality's masks behind one another; whole where a request leaves it whole."""
    given = next((mask for mask in masks if mask is not None), None)
    if given is None:
        return None
    batch, _, tokens = given.shape
    pairs = zip(masks, counts, strict=True)
    return np.concatenate([np.ones((batch, m, tokens), dtype=np.bool_) if k is None else k for k, m in pairs], axis=1)
