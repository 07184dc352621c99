"""The interface between measures and models: token subsets, and a model's outputs for them.

A measure asks for subsets. A ``Reader`` runs a model on them; it knows how to remove a token from the model's input.
Neither depends on the other, so every measure works with every model that has a reader.
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
    """M subsets of the tokens of each of B samples, as masks of the kept tokens.

    If both masks are None, the only subset is the full sample, M = 1.

    Attributes:
        image: Kept patches, bool [B, M, P]; None keeps the whole image in all subsets.
        text: Kept text tokens, bool [B, M, n_t]; values at padding are ignored; None keeps the whole text.
    """

    image: Mask | None = None
    text: Mask | None = None

    @classmethod
    def only(cls, modality: Modality, kept: Mask) -> Subsets:
        """Return subsets of one modality that keep the other modality whole."""
        return cls(image=kept) if modality == "image" else cls(text=kept)

    @property
    def count(self) -> int:
        """The number M of subsets per sample.

        Raises:
            ValueError: The image masks and the text masks have different numbers of subsets.
        """
        counts = {mask.shape[1] for mask in (self.image, self.text) if mask is not None} or {1}
        if len(counts) > 1:
            raise ValueError(
                f"image and text masks have {sorted(counts)} subsets per sample: their numbers must be equal"
            )
        return counts.pop()


@dataclass(frozen=True, eq=False)
class SubsetOutputs:
    """A model's outputs for M subsets of each of B samples.

    Attributes:
        said: The answers or captions, str objects [B, M].
        values: Numbers by name, [B, M] each; the first one is the main value of the reports.
        response: Name of the value from which measures such as ``eraser`` and ``faithfulness`` compute effects. It must
            change with small changes of the input, so it is a probability or score and not an accuracy.
    """

    said: NDArray[np.object_]
    values: Mapping[str, Array]
    response: str

    @property
    def responses(self) -> Array:
        """The value ``response`` for every subset, [B, M]."""
        return self.values[self.response]

    def part(self, places: slice) -> SubsetOutputs:
        """Return the outputs for some of the M subsets."""
        values = {name: value[:, places] for name, value in self.values.items()}
        return SubsetOutputs(self.said[:, places], values, self.response)


class Reader(Protocol[Samples, Asked]):
    """A model that can be run on token subsets; its samples have a type of the reader's choice."""

    def read(self, samples: Samples, subsets: Subsets, asked: Asked) -> SubsetOutputs:
        """Run the model on every subset; equal subsets of a sample are computed once.

        Args:
            samples: B samples.
            subsets: M subsets of each.
            asked: The outputs that the values are about, if the samples do not contain them; for VQA, the answers whose
                probability is returned.

        Raises:
            UserError: The model can't run without the removed tokens.
        """


Read = Callable[[Subsets], SubsetOutputs]  #: a reader that is bound to its samples


def read_together(read: Read, requests: Mapping[Key, Subsets]) -> dict[Key, SubsetOutputs]:
    """Read all requests in one pass, so that a subset that several requests contain is computed once.

    Args:
        read: The function that reads subsets.
        requests: Subsets by key.

    Returns:
        The outputs by key, in the order of the requests.
    """
    if not requests:
        return {}
    counts = [subsets.count for subsets in requests.values()]
    image = _concatenate([subsets.image for subsets in requests.values()], counts)
    text = _concatenate([subsets.text for subsets in requests.values()], counts)
    outputs = read(Subsets(image, text))
    if image is None and text is None:
        return dict.fromkeys(requests, outputs)
    ends = np.cumsum(counts).tolist()
    return {key: outputs.part(slice(end - count, end)) for key, count, end in zip(requests, counts, ends, strict=True)}


def _concatenate(masks: Sequence[Mask | None], counts: Sequence[int]) -> Mask | None:
    """Concatenate the masks of one modality; a missing mask of a request keeps every token."""
    given = next((mask for mask in masks if mask is not None), None)
    if given is None:
        return None
    batch, _, tokens = given.shape
    pairs = zip(masks, counts, strict=True)
    return np.concatenate([np.ones((batch, m, tokens), dtype=np.bool_) if k is None else k for k, m in pairs], axis=1)
