"""One attention step of a trace, its checks, and the positions of modalities in the joint order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

JOINT = "joint"
MAPS = ("attention", "attention_grad", "attention_relevance")  # fields of shape [B, H, n_s, n_q]
STREAMS = ("residual", "residual_grad", "output", "output_grad")  # fields of shape [B, n_s, D]


class TraceError(ValueError):
    """A trace that is malformed, or that does not fit the request; the message names the step and the tensor."""


def span(sizes: Mapping[str, int], modality: str) -> slice:
    """Return the joint positions of a modality's tokens; the joint order is the order of ``sizes``.

    Raises:
        TraceError: The modality is neither in ``sizes`` nor ``"joint"``.
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

    Every explainer needs ``attention``. The other tensors are optional: ``Explainer.needs`` lists those that an
    explainer reads, and an absent tensor is None. See docs/method.md, Notation.
    """

    query: str  #: modality s; "joint" means all tokens
    key: str  #: modality q; equal to ``query`` in a self-attention
    attention: Tensor  #: A [B, H, n_s, n_q], the probabilities after the softmax
    attention_grad: Tensor | None = None  #: ∂y/∂A [B, H, n_s, n_q]
    residual: Tensor | None = None  #: X [B, n_s, D], the residual stream that enters the block
    residual_grad: Tensor | None = None  #: ∂y/∂X [B, n_s, D], through all paths (skip connection, attention)
    output: Tensor | None = None  #: Y [B, n_s, D], which the block adds to X: X' = X + Y
    output_grad: Tensor | None = None  #: ∂y/∂Y = ∂y/∂X' [B, n_s, D]
    #: Consecutive steps with the same number run in parallel: they read R before any of them changes it. None means
    #: that the step forms a separate stage.
    stage: int | None = None
    attention_relevance: Tensor | None = None  #: LRP relevance of A [B, H, n_s, n_q]

    def __repr__(self) -> str:
        held = [name for name in (*MAPS[1:], *STREAMS) if getattr(self, name) is not None]
        others = f"; {', '.join(held)}" if held else ""
        return f"AttentionStep({self.query} attends to {self.key}: attention {list(self.attention.shape)}{others})"

    @property
    def is_cross(self) -> bool:
        """Whether the step is a cross-attention: the query and key modalities differ."""
        return self.query != self.key

    def tensor(self, name: str) -> Tensor:
        """Return one of the step's tensors by name.

        Raises:
            TraceError: The step does not hold this tensor.
        """
        tensor: Tensor | None = getattr(self, name)
        if tensor is None:
            raise TraceError(f"a step in which {self.query} attends to {self.key} lacks {name}")
        return tensor

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and value of each tensor that the step holds."""
        for name in MAPS + STREAMS:
            if (tensor := getattr(self, name)) is not None:
                yield name, tensor

    def check(self, label: str, batch: int, sizes: Mapping[str, int]) -> None:
        """Raise :class:`TraceError` if a tensor's shape does not fit the modalities.

        Args:
            label: The step's name in error messages.
            batch: B, the expected number of samples.
            sizes: Number of tokens of each modality, in joint order.
        """
        if self.is_cross and JOINT in (self.query, self.key):
            raise TraceError(f"{label}: {JOINT!r} can attend only to {JOINT!r}")
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
    """Anything with a query and a key modality, such as a step of a trace or of a recording, or a token map."""

    @property
    def query(self) -> str:
        """Modality s, whose tokens attend."""

    @property
    def key(self) -> str:
        """Modality q, whose tokens are attended to."""


def replaces(later: Directed, earlier: Directed) -> bool:
    """Return whether the step ``later`` makes ``earlier`` no longer the last of its kind.

    This is so if both have the same pair of modalities; a joint attention replaces every earlier step.
    """
    return later.query == JOINT or (later.query, later.key) == (earlier.query, earlier.key)


def last_steps(steps: Sequence[Directed]) -> list[int]:
    """Return the indices of the last attention step of each pair of modalities.

    Steps that :func:`replaces` rules out are left out, but not if a token map has handed their rows on to another
    modality before.
    """
    last: list[int] = []
    handed: list[int] = []
    for place, step in enumerate(steps):
        if hasattr(step, "weights"):  # a token map
            if step.query != step.key:
                handed += [before for before in last if steps[before].query == step.key]
                last = [before for before in last if before not in handed]
            continue
        last = [*(before for before in last if not replaces(step, steps[before])), place]
    return sorted(handed + last)


def read_through(steps: Sequence[Directed], step: Directed) -> list[str]:
    """Return the modalities that the queries of a cross-attention read only through its keys.

    These are the modalities that the key modality attended to before, and the query modality never attends to.

    Args:
        steps: The steps of the trace.
        step: One of them.
    """
    attentions = [each for each in steps if not hasattr(each, "weights")]
    own = {step.query, step.key, *(each.key for each in attentions if each.query == step.query)}
    before = attentions[: next(place for place, each in enumerate(attentions) if each is step)]
    return list(dict.fromkeys(each.key for each in before if each.query == step.key and each.key not in own))


def check_shape(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    """Raise :class:`TraceError` unless ``tensor`` has ``shape``, in which a letter stands for any size."""
    fits = tensor.ndim == len(shape) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise TraceError(f"{name}: expected {_format_shape(shape)}, got {_format_shape(tensor.shape)}")


def _format_shape(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _length(tokens: slice) -> int:
    return int(tokens.stop - tokens.start)
