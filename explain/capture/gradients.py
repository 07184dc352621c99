"""Gradients of several scalars per sample, such as every word of a caption, from the graph of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.capture.parts import Parts
from explain.trace import TraceError

# Number of samples in one batched backward pass. With fewer, Python's overhead dominates in small models; with more,
# the data no longer fits into the cache.
AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Items:
    """The scalars that a trace explains, ordered by sample: item m is scalar ``place[m]`` of sample ``sample[m]``.

    Both index tensors are [M].
    """

    sample: Tensor
    place: Tensor
    shape: tuple[int, int]  #: number of samples B, and of scalars per sample T

    @classmethod
    def of(cls, target: Tensor, wanted: Tensor | None) -> Items:
        """Return the items of ``target``, [B] or [B, T].

        Args:
            target: The scalars.
            wanted: bool [B, T], True for the scalars to include; None includes all.

        Raises:
            TraceError: ``wanted`` does not fit the target, or selects nothing.
        """
        batch, scalars = target.shape[0], target.shape[1] if target.ndim == 2 else 1
        if wanted is None:
            wanted = target.new_ones(batch, scalars, dtype=torch.bool)
        elif wanted.shape != target.shape or target.ndim != 2 or wanted.dtype != torch.bool:
            raise TraceError(f"wanted: expected bool of the target's shape [B, T], got {list(wanted.shape)}")
        sample, place = wanted.to(target.device).nonzero(as_tuple=True)
        if not len(sample):
            raise TraceError("wanted: no scalar of any sample is selected")
        return cls(sample, place, (batch, scalars))

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def are_samples(self) -> bool:
        """Whether each sample is exactly one item."""
        return self.shape[1] == 1 and len(self) == self.shape[0]

    def repeated(self, tensor: Tensor) -> Tensor:
        """Repeat each sample's part of a tensor for its items: [B, ...] → [M, ...], as a view if possible."""
        if self.are_samples:
            return tensor
        return tensor.expand(len(self), *tensor.shape[1:]) if self.shape[0] == 1 else tensor[self.sample]

    def groups(self, size: int) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ranges of at most ``size`` places, with the items in each.

        A range is the first place and the place after the last one. Ranges without items are left out.
        """
        for first in range(0, self.shape[1], size):
            last = min(first + size, self.shape[1])
            inside = ((self.place >= first) & (self.place < last)).nonzero()[:, 0]
            if len(inside):
                yield first, last, inside


def gradients(
    target: Tensor, live: Sequence[Tensor | Parts], items: Items, retain: bool, at_once: int = AT_ONCE
) -> list[Tensor]:
    """Return ∂y/∂Z, [M, ...], for each tensor Z, [B, ...], of ``live``; 0 if y does not depend on Z.

    Samples do not interact, so one backward pass serves all of them. The passes for different places are batched.

    Args:
        target: y, [B] or [B, T].
        live: Tensors that the target was computed from, or the parts of one.
        items: The scalars to differentiate.
        retain: Whether to keep the graph.
        at_once: Number of samples that one batched pass serves. Use 1 if the graph has autograd functions that do not
            support batched gradients.
    """
    parts = [Parts.of(value) for value in live]
    tensors = [tensor for value in parts for tensor in value.tensors]
    if items.are_samples:
        each = torch.ones_like(target)
        options = {"retain_graph": retain, "allow_unused": True, "materialize_grads": True}
        grads = iter(torch.autograd.grad(target, tensors, each, **options))
        return [value.whole([next(grads) for _ in value.tensors]) for value in parts]
    found: list[Tensor | None] = [None] * len(parts)
    groups = list(items.groups(max(1, at_once // items.shape[0])))
    for number, (first, last, inside) in enumerate(groups):
        keep = retain or number + 1 < len(groups)
        place, sample = items.place[inside] - first, items.sample[inside]
        grads_of = iter(_passes(target, tensors, first, last, keep))
        for index, value in enumerate(parts):
            of_places = _whole(value, [next(grads_of) for _ in value.tensors], last - first)
            if of_places is not None:
                if found[index] is None:
                    found[index] = of_places.new_zeros(len(items), *of_places.shape[2:])
                found[index][inside] = of_places[place, sample]  # type: ignore[index]
    return [_zeros(value, len(items)) if grad is None else grad for value, grad in zip(parts, found, strict=True)]


def _whole(value: Parts, grads: list[Tensor | None], places: int) -> Tensor | None:
    """Return the gradients of one value, [places, B, ...], from those of its parts; None if all are zero."""
    if all(grad is None for grad in grads):
        return None
    if value.arrange is None:
        return grads[0]
    of_parts = [
        tensor.new_zeros(places, *tensor.shape) if grad is None else grad
        for tensor, grad in zip(value.tensors, grads, strict=True)
    ]
    return torch.stack([value.whole([grad[place] for grad in of_parts]) for place in range(places)])


def _zeros(value: Parts, count: int) -> Tensor:
    whole = value.detach().whole()
    return whole.new_zeros(count, *whole.shape[1:])


def _passes(target: Tensor, live: Sequence[Tensor], first: int, last: int, keep: bool) -> list[Tensor | None]:
    """Return the gradients of every sample's scalars at places ``first`` to ``last`` − 1, [last − first, B, ...]."""
    one = torch.zeros(last - first, *target.shape, dtype=target.dtype, device=target.device)
    for place in range(first, last):
        one[place - first, :, place] = 1
    if len(one) > 1:
        options = {"retain_graph": keep, "allow_unused": True, "is_grads_batched": True}
        return list(torch.autograd.grad(target, live, one, **options))
    alone = torch.autograd.grad(target, live, one[0], retain_graph=keep, allow_unused=True)
    return [None if grad is None else grad[None] for grad in alone]
