"""Recorded values that a model computes in pieces, or with its tokens in another order or grouping than the trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

Arrange = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Parts:
    """Live tensors of a model that together are one tensor [B, ...] of the trace.

    ``arrange`` is linear, so it applies to the tensors' gradients as well.
    """

    tensors: tuple[Tensor, ...]
    arrange: Arrange | None = None  #: puts the tensors together; None: there is one, and it is the value
    batch: int | None = None  #: B; None if the only tensor is the value

    @classmethod
    def of(cls, value: Tensor | Parts) -> Parts:
        """Return parts as they are, and a tensor as the only part."""
        return value if isinstance(value, Parts) else cls((value,))

    @property
    def samples(self) -> int:
        """B, the number of samples of the value."""
        return len(self.tensors[0]) if self.batch is None else self.batch

    @property
    def requires_grad(self) -> bool:
        """Whether each part has a gradient graph."""
        return all(tensor.requires_grad for tensor in self.tensors)

    @property
    def versions(self) -> tuple[int, ...]:
        """PyTorch's version counter of each part."""
        return tuple(tensor._version for tensor in self.tensors)

    def detach(self) -> Parts:
        """Return the parts without their graph."""
        return replace(self, tensors=tuple(tensor.detach() for tensor in self.tensors))

    def whole(self, tensors: Sequence[Tensor] | None = None) -> Tensor:
        """Return the value, [B, ...], or the same arrangement of other tensors, such as the parts' gradients."""
        tensors = self.tensors if tensors is None else tensors
        return tensors[0] if self.arrange is None else self.arrange(tensors)
