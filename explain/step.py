"""One attention step of a trace, where its tokens lie in the joint order, and what is refused of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

JOINT = "joint"
MAPS = ("attention", "attention_grad", "attention_relevance")  # [B, H, n_s, n_q]
STREAMS = ("residual", "residual_grad", "output", "output_grad")  # [B, n_s, D]


class TraceError(ValueError):
    """A trace, or a question asked of it, that does not fit: the message names the step and the tensor."""


def span(sizes: Mapping[str, int], modality: str) -> slice:
    """The joint positions of a modality's tokens; the joint order is the order of ``sizes``.

    Raises:
        TraceError: the modality is neither in ``sizes`` nor ``"joint"``.
    """
    if modality == JOINT:
        return slice(0, sum(sizes.values()))
    start = 0
    for name, size in sizes.items():
        if name == modality:
            return slice(start, start + size)
        start += size
    raise TraceError(f"unknown modality {modality!r}; this trace has {', '.join(map(repr, [*sizes, JOINT]))}")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class AttentionStep:
    """One attention block of a transformer layer: queries of modality s, keys and values of modality q.

    Only the attention is needed by every explainer; the other tensors may be left out where none that is asked for
    needs them (``Explainer.needs`` lists what one needs).
    """

    query: str  #: modality s; "joint" for all tokens
    key: str  #: modality q; equal to ``query`` for self-attention
    attention: Tensor  #: A [B, H, n_s, n_q], probabilities after the softmax
    attention_grad: Tensor | None = None  #: ∂y/∂A [B, H, n_s, n_q]
    residual: Tensor | None = None  #: X [B, n_s, D], the residual stream that enters the block
    residual_grad: Tensor | None = None  #: ∂y/∂X [B, n_s, D], through the skip connection and the attention branch
    output: Tensor | None = None  #: Y [B, n_s, D], what the block adds: X' = X + Y
    output_grad: Tensor | None = None  #: ∂y/∂Y = ∂y/∂X' [B, n_s, D]
    stage: int | None = None  #: consecutive steps of one stage run side by side; None: a stage of its own
    attention_relevance: Tensor | None = None  #: LRP relevance of A [B, H, n_s, n_q]

    def __repr__(self) -> str:
        held = [name for name in (*MAPS[1:], *STREAMS) if getattr(self, name) is not None]
        others = f"; {', '.join(held)}" if held else ""
        return f"AttentionStep({self.query} attends to {self.key}: attention {list(self.attention.shape)}{others})"

    @property
    def is_cross(self) -> bool:
        """Whether one modality attends to another."""
        return self.query != self.key

    def tensor(self, name: str) -> Tensor:
        """One of the step's tensors by its name; raises :class:`TraceError` where it was left out."""
        tensor: Tensor | None = getattr(self, name)
        if tensor is None:
            raise TraceError(f"a step in which {self.query} attends to {self.key} lacks {name}")
        return tensor

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are there, by name."""
        for name in MAPS + STREAMS:
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor

    def check(self, label: str, batch: int, sizes: Mapping[str, int]) -> None:
        """Raise :class:`TraceError`, which calls the step ``label``, unless every tensor has the shape it should."""
        if self.is_cross and JOINT in (self.query, self.key):
            raise TraceError(f"{label}: {JOINT!r} attends to {JOINT!r} alone")
        try:
            n_s, n_q = (_length(span(sizes, modality)) for modality in (self.query, self.key))
        except TraceError as error:
            raise TraceError(f"{label}: {error}") from None
        check_shape(f"{label}: attention", self.attention, (batch, "H", n_s, n_q))
        width = next((tensor.shape[-1] for name, tensor in self.tensors() if name in STREAMS), "D")
        for name, tensor in self.tensors():
            shape = tuple(self.attention.shape) if name in MAPS else (batch, n_s, width)
            check_shape(f"{label}: {name}", tensor, shape)


class Directed(Protocol):
    """Who attends to whom."""

    @property
    def query(self) -> str: ...

    @property
    def key(self) -> str: ...


def replaces(later: Directed, earlier: Directed) -> bool:
    """Whether a step leaves an earlier one no longer the last of its kind.

    It does where the pair of modalities is the same, and a joint attention replaces every step.
    """
    return later.query == JOINT or (later.query, later.key) == (earlier.query, earlier.key)


def last_steps(steps: Sequence[Directed]) -> list[int]:
    """The places of the last step of each pair of modalities that no later joint attention replaces."""
    last: list[int] = []
    for place, step in enumerate(steps):
        last = [*(before for before in last if not replaces(step, steps[before])), place]
    return last


def check_shape(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    """Raise :class:`TraceError` unless ``tensor`` has ``shape``; a letter in it stands for any size."""
    fits = tensor.ndim == len(shape) and all(
        isinstance(want, str) or got == want for got, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise TraceError(f"{name}: expected {_shape(shape)}, got {_shape(tensor.shape)}")


def _shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _length(tokens: slice) -> int:
    return int(tokens.stop - tokens.start)
