"""One step of a recording: what is kept of it, with or without its graph, and the step of the trace it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import pad

from explain.capture.gradients import Items
from explain.step import AttentionStep, TraceError


@dataclass(frozen=True, eq=False)
class LiveStep:
    """A step with the tensors that are kept of it: those to be differentiated with their graph, others without."""

    query: str
    key: str
    stage: int
    number: int  # in the order in which the model ran the steps
    tensors: dict[str, Tensor]  # attention, residual, output
    versions: dict[str, int]  # how often each had been written in place when it was handed over

    @property
    def label(self) -> str:
        return f"step {self.number} ({self.query} attends to {self.key})"

    def keeping(self, fields: frozenset[str]) -> LiveStep:
        """The step with what these fields need of it."""
        kept = {}
        for name, tensor in self.tensors.items():
            if f"{name}_grad" in fields:
                kept[name] = tensor
            elif name in fields or name == "attention":
                kept[name] = tensor.detach()
        return replace(self, tensors=kept)

    def check_graph(self, fields: frozenset[str]) -> None:
        """Raise :class:`TraceError` if a tensor whose gradient is among ``fields`` has no graph."""
        for name in self.differentiated(fields):
            if not self.tensors[name].requires_grad:
                raise TraceError(
                    f"{self.label}: {name} requires no grad; watch() the embeddings before the first block, and do not "
                    "run it under no_grad"
                )

    def check_versions(self) -> None:
        """Raise :class:`TraceError` if a tensor was changed in place since it was recorded."""
        for name, tensor in self.tensors.items():
            if tensor._version != self.versions[name]:
                raise TraceError(f"{self.label}: {name} was changed in place after it was recorded")

    def differentiated(self, fields: frozenset[str]) -> list[str]:
        """The names of the tensors whose gradient is among ``fields``."""
        return [name for name in self.tensors if f"{name}_grad" in fields]

    def detached(
        self, fields: frozenset[str], items: Items, grads: Iterator[Tensor], queries: int, keys: int
    ) -> AttentionStep:
        """The step with what ``fields`` name: its tensors detached, and their gradients, next in ``grads``.

        ``queries`` and ``keys`` are the tokens that its modalities lack at their front.
        """
        kept = (name for name in self.tensors if name in fields or name == "attention")
        tensors = {name: items.repeated(self.tensors[name].detach()) for name in kept}
        tensors |= {f"{name}_grad": next(grads) for name in self.differentiated(fields)}
        whole = {
            name: pad_map(tensor, queries, keys) if name.startswith("attention") else pad_stream(tensor, queries)
            for name, tensor in tensors.items()
        }
        return AttentionStep(query=self.query, key=self.key, stage=self.stage, **whole)


def pad_map(attention: Tensor, queries: int, keys: int) -> Tensor:
    """Zeros for tokens missing at the front: [B, H, n_s, n_q] → [B, H, queries + n_s, keys + n_q]."""
    return pad(attention, (keys, 0, queries, 0)) if queries or keys else attention


def pad_stream(stream: Tensor, tokens: int) -> Tensor:
    """Zeros for tokens missing at the front: [B, n, D] → [B, tokens + n, D]."""
    return pad(stream, (0, 0, tokens, 0)) if tokens else stream
