"""One step of a recording, and its conversion into a step of the trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import pad

from explain.capture.gradients import Items
from explain.capture.parts import Parts
from explain.step import AttentionStep, TraceError
from explain.trace import TokenMap


@dataclass(frozen=True, eq=False)
class LiveStep:
    """A recorded step with the tensors that are kept of it.

    Tensors that will be differentiated keep their graph; the others are detached.
    """

    query: str
    key: str
    stage: int
    number: int  # position in the order in which the model ran the steps
    tensors: dict[str, Parts]  # attention, residual, output
    versions: dict[str, tuple[int, ...]]  # PyTorch's version counters of each tensor when it was recorded

    @property
    def label(self) -> str:
        """The step's name in error messages."""
        return f"step {self.number} ({self.query} attends to {self.key})"

    def keeping(self, fields: frozenset[str]) -> LiveStep:
        """Return the step with only the tensors that ``fields`` need."""
        kept = {}
        for name, tensor in self.tensors.items():
            if f"{name}_grad" in fields:
                kept[name] = tensor
            elif name in fields or name == "attention":
                kept[name] = tensor.detach()
        return replace(self, tensors=kept)

    def check_graph(self, fields: frozenset[str]) -> None:
        """Raise :class:`TraceError` if a tensor whose gradient is in ``fields`` has no gradient graph."""
        for name in self.differentiated(fields):
            if not self.tensors[name].requires_grad:
                raise TraceError(
                    f"{self.label}: {name} requires no grad; watch() the embeddings before the first block, and do not "
                    "run the model under no_grad"
                )

    def check_versions(self) -> None:
        """Raise :class:`TraceError` if a tensor was changed in place after it was recorded."""
        for name, tensor in self.tensors.items():
            if tensor.versions != self.versions[name]:
                raise TraceError(f"{self.label}: {name} was changed in place after it was recorded")

    def differentiated(self, fields: frozenset[str]) -> list[str]:
        """Return the names of the tensors whose gradient is in ``fields``."""
        return [name for name in self.tensors if f"{name}_grad" in fields]

    def detached(
        self, fields: frozenset[str], items: Items, grads: Iterator[Tensor], queries: int, keys: int
    ) -> AttentionStep:
        """Return the step of the trace that holds ``fields``: detached tensors and their gradients.

        Args:
            fields: Names of the fields to hold.
            items: The scalars that the trace explains.
            grads: Gradients of the differentiated tensors; the next ones belong to this step.
            queries: Number of tokens to add at the front of the query side.
            keys: Number of tokens to add at the front of the key side.
        """
        kept = (name for name in self.tensors if name in fields or name == "attention")
        tensors = {name: items.repeated(self.tensors[name].detach().whole()) for name in kept}
        tensors |= {f"{name}_grad": next(grads) for name in self.differentiated(fields)}
        whole = {
            name: pad_map(tensor, queries, keys) if name.startswith("attention") else pad_stream(tensor, queries)
            for name, tensor in tensors.items()
        }
        return AttentionStep(query=self.query, key=self.key, stage=self.stage, **whole)


@dataclass(frozen=True, eq=False)
class LiveMap:
    """A recorded token map."""

    before: int  # number of attention steps recorded before it
    step: TokenMap
    merged: Parts | None  # the old tokens [B, n_old, D], if their importance decides how they are merged

    def hands_on(self, modality: str) -> bool:
        """Return whether the map gives a modality's rows to another modality."""
        return self.step.key == modality != self.step.modality

    def finished(self, items: Items, grads: Iterator[Tensor]) -> TokenMap:
        """Return the map for the items that the trace explains.

        Merged tokens are weighted by their share of Σ_channels (X ⊙ ∇X)⁺ among those that are merged into one.
        """
        valid = None if self.step.valid is None else items.repeated(self.step.valid)
        weights = items.repeated(self.step.weights)
        if self.merged is not None:
            importance = (items.repeated(self.merged.detach().whole()) * next(grads)).clamp(min=0).sum(-1)
            shares = weights * importance[:, None].to(weights)
            total = shares.sum(-1, keepdim=True)
            weights = (shares / total.masked_fill(total == 0, 1)).where(total > 0, weights)
        return replace(self.step, weights=weights, valid=valid)


def pad_map(attention: Tensor, queries: int, keys: int) -> Tensor:
    """Add zeros for missing tokens at the front: [B, H, n_s, n_q] → [B, H, queries + n_s, keys + n_q]."""
    return pad(attention, (keys, 0, queries, 0)) if queries or keys else attention


def pad_stream(stream: Tensor, tokens: int) -> Tensor:
    """Add zeros for missing tokens at the front: [B, n, D] → [B, tokens + n, D]."""
    return pad(stream, (0, 0, tokens, 0)) if tokens else stream
