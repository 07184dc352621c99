"""Attention traces: the attention steps of one forward pass, in the order in which the model ran them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.layout import Layout
from explain.step import JOINT, AttentionStep, TraceError, check_shape, last_steps, read_through, span
from explain.token_map import TokenMap

__all__ = [
    "JOINT",
    "AttentionStep",
    "AttentionTrace",
    "Scalar",
    "Stage",
    "TokenMap",
    "TraceError",
    "read_through",
    "span",
]

Stage = list[AttentionStep] | TokenMap  #: steps that ran in parallel, or one token map
Scalar = Callable[[Mapping[str, Tensor]], Tensor]  #: computes y [B] from all ``AttentionTrace.inputs``
TOKEN_FIELDS = ("inputs", "inputs_grad")  # fields of the trace that map modality → [B, n, D]
TRACE_FIELDS = (*TOKEN_FIELDS, "scalar", "grid")
NAMES = ("sample_ids", "picture_ids")  # fields of the trace that name the B samples


@dataclass(frozen=True, eq=False, repr=False)
class AttentionTrace:
    """The attention steps of one forward pass, with the gradients of one scalar y per sample.

    Between them there can be token maps, which change the number of a modality's tokens. The columns of R are always
    the input tokens (``sizes``); its rows are the tokens that the model holds (:meth:`layout`, ``final``).

    Raises:
        TraceError: A shape, a modality or a mask does not fit, or a tensor holds NaN or Inf; the message names the
            step's index and the tensor.
    """

    sizes: Mapping[str, int]  #: number of input tokens of each modality, in joint order: {"image": n_v, "text": n_t}
    steps: Sequence[AttentionStep | TokenMap]
    valid: Tensor | None = None  #: bool [B, N] in joint order, False for padding; None means no padding
    inputs: Mapping[str, Tensor] | None = None  #: tokens of each modality that enter the first block, [B, n, D]
    inputs_grad: Mapping[str, Tensor] | None = None  #: gradients of ``inputs``, with the same shapes
    sample_ids: Sequence[int | str] | None = None  #: names of the B samples, which seed random draws
    scalar: Scalar | None = None  #: runs the model again, for explainers that need more passes
    #: ids of the images that the B samples show; None means that every sample shows an image of its own
    picture_ids: Sequence[int | str] | None = None
    #: Rows and columns of the patches, which are the last image tokens; None if the samples have no common grid.
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_layouts", {})  # the tokens before each step, by the step's id
        _check_sizes(self)
        _check_stages(self)
        _check_finite(self)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} {modality}" for modality, size in self.sizes.items())
        fields = dict.fromkeys(name for step in self.attention_steps for name, _ in step.tensors())
        held = [name for name in (*TRACE_FIELDS, "valid", *NAMES) if getattr(self, name) is not None]
        return (
            f"AttentionTrace(batch of {self.batch}, tokens: {sizes}, {len(self.steps)} steps, {self.dtype},\n"
            f"  steps hold {', '.join(fields)};\n"
            f"  the trace holds {', '.join(held) or 'nothing else'})"
        )

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.attention_steps[0].attention.shape[0]

    @property
    def attention_steps(self) -> list[AttentionStep]:
        """The steps without the token maps."""
        return [step for step in self.steps if isinstance(step, AttentionStep)]

    @property
    def tokens(self) -> int:
        """N, the number of input tokens of all modalities."""
        return sum(self.sizes.values())

    @property
    def final(self) -> Layout:
        """The tokens after the last step, which are the rows of R; without token maps, the input tokens."""
        layout = Layout(self.sizes, self.valid)
        for step in self.steps:
            layout = step.after(layout) if isinstance(step, TokenMap) else layout
        return layout

    @property
    def dtype(self) -> torch.dtype:
        """Data type of relevance: that of the attention, but at least float32."""
        return torch.promote_types(self.attention_steps[0].attention.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device that holds the attention."""
        return self.attention_steps[0].attention.device

    @property
    def has_cross_attention(self) -> bool:
        """Whether any step is a cross-attention."""
        return any(step.is_cross for step in self.attention_steps)

    def stages(self) -> list[Stage]:
        """Return the steps in order, grouped by stage.

        Neighbouring attention steps with the same stage number ran in parallel and form one group. A token map stands
        alone.
        """
        stages: list[Stage] = []
        for step in self.steps:
            group = stages[-1] if stages else None
            if isinstance(step, TokenMap):
                stages.append(step)
            elif isinstance(group, list) and step.stage is not None and group[0].stage == step.stage:
                group.append(step)
            else:
                stages.append([step])
        return stages

    def last_steps(self) -> list[AttentionStep]:
        """Return the last step of each pair of modalities, except those replaced by a later joint attention."""
        places = last_steps(self.steps)
        return [step for place in places if isinstance(step := self.steps[place], AttentionStep)]

    def layout(self, step: AttentionStep | TokenMap) -> Layout:
        """Return the tokens that the model holds before a step of this trace."""
        layout: Layout = self._layouts[id(step)]  # type: ignore[attr-defined]
        return layout

    def mapped(self, before: AttentionStep | None = None) -> Tensor | None:
        """Return the identity after all token maps before a step, [B, N_rows, N], or None if there is none.

        Row i contains the share of each input token in token i if attention is left out. ``before=None`` means after
        the last step.
        """
        mapped: Tensor | None = None
        for step in self.steps:
            if step is before:
                break
            if isinstance(step, TokenMap):
                mapped = step.carry(self.identity() if mapped is None else mapped, self.layout(step))
        return mapped

    def span(self, modality: str) -> slice:
        """Return the joint positions of a modality's tokens.

        Raises:
            TraceError: The trace has no such modality.
        """
        return span(self.sizes, modality)

    def valid_tokens(self, modality: str) -> Tensor | None:
        """Return the valid tokens of one modality, bool [B, n], or None if the trace has no padding."""
        return None if self.valid is None else self.valid[:, self.span(modality)]

    def identity(self) -> Tensor:
        """Return R before the first step, the identity, [B, N, N] (Huang et al. 2023, Eq. 8)."""
        return torch.eye(self.tokens, dtype=self.dtype, device=self.device).repeat(self.batch, 1, 1)

    def require(self, *fields: str, by: str, last_only: bool = False) -> None:
        """Raise :class:`TraceError` for the first of ``fields`` that is missing in the trace or in one of its steps.

        Args:
            fields: Names of optional fields of the trace or of its steps.
            by: Name of what needs the fields, for the error message.
            last_only: Check only the last attention steps (:meth:`last_steps`).
        """
        steps = {place: step for place, step in enumerate(self.steps) if isinstance(step, AttentionStep)}
        places = last_steps(self.steps) if last_only else [*steps]
        for field in fields:
            if field in TRACE_FIELDS:
                if getattr(self, field) is None:
                    raise TraceError(f"{by} needs {field}, which this trace lacks")
                continue
            for place in places:
                if getattr(steps[place], field) is None:
                    raise TraceError(f"{by} needs {field}, which {_label(place, steps[place])} lacks")

    def checked_rows(self, rows: Tensor) -> Tensor:
        """Return row indices as integers, [B], or the weights of all rows, [B, N_rows], on the trace's device.

        Raises:
            TraceError: The indices have a wrong shape or data type, or are out of range.
        """
        rows = torch.as_tensor(rows, device=self.device)
        if rows.ndim == 2 and rows.is_floating_point():
            check_shape("rows", rows, (self.batch, self.final.tokens))
            return rows.to(self.dtype)
        check_shape("rows", rows, (self.batch,))
        if rows.is_floating_point() or rows.dtype == torch.bool:
            raise TraceError(f"rows must be integers, not {rows.dtype}")
        count = self.final.tokens
        if int(rows.min()) < 0 or int(rows.max()) >= count:
            raise TraceError(f"rows must be in 0..{count - 1}, got {rows.tolist()}")
        return rows.long()


def _check_sizes(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` if a tensor's shape does not fit the trace's sizes."""
    if JOINT in trace.sizes or not all(isinstance(size, int) and size > 0 for size in trace.sizes.values()):
        raise TraceError(f"sizes must map modalities (none called {JOINT!r}) to positive counts: {dict(trace.sizes)}")
    if not trace.attention_steps:
        raise TraceError("a trace needs at least one attention step")
    if trace.valid is not None:
        check_shape("valid", trace.valid, (trace.batch, trace.tokens))
        if trace.valid.dtype != torch.bool:
            raise TraceError(f"valid must be bool, not {trace.valid.dtype}")
    _check_steps(trace)
    for field in TOKEN_FIELDS:
        for modality, tensor in (getattr(trace, field) or {}).items():
            tokens = trace.span(modality)
            check_shape(f"{field}[{modality!r}]", tensor, (trace.batch, tokens.stop - tokens.start, "D"))
    for field in NAMES:
        names = getattr(trace, field)
        if names is not None and len(names) != trace.batch:
            raise TraceError(f"{field}: expected {trace.batch} names, got {len(names)}")
    if trace.grid is not None and trace.grid[0] * trace.grid[1] > trace.sizes.get("image", 0):
        raise TraceError(f"grid: {trace.grid[0]} x {trace.grid[1]} patches are more than the image tokens")
    if trace.sample_ids is not None and len(trace.sample_ids) != trace.batch:
        raise TraceError(f"sample_ids: expected {trace.batch} names, got {len(trace.sample_ids)}")


def _check_steps(trace: AttentionTrace) -> None:
    """Find the tokens before each step; raise :class:`TraceError` if a step's tensors do not fit them."""
    layout = Layout(trace.sizes, trace.valid)
    for index, step in enumerate(trace.steps):
        trace._layouts[id(step)] = layout  # type: ignore[attr-defined]
        if isinstance(step, TokenMap):
            step.check(_label(index, step), trace.batch, layout)
            layout = step.after(layout)
        else:
            step.check(_label(index, step), trace.batch, layout.sizes)


def _check_stages(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` if two steps that run in parallel write the same rows of R."""
    for stage in trace.stages():
        if isinstance(stage, TokenMap):
            continue
        queries = [step.query for step in stage]
        if len(set(queries)) < len(queries) or (JOINT in queries and len(queries) > 1):
            raise TraceError(
                f"stage {stage[0].stage}: steps that run in parallel need different query modalities, got {queries}"
            )


def _check_finite(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` for NaN or Inf; all tensors are tested in one transfer from the device."""
    named = list(_named_tensors(trace))
    sums = torch.stack([tensor.detach().sum().float() for _, tensor in named])
    if bool(sums.isfinite().all()):
        return
    # Report tensors of the forward pass first: they are the cause if gradients are not finite either.
    for name, tensor in sorted(named, key=lambda pair: "_grad" in pair[0] or "_relevance" in pair[0]):
        if not bool(tensor.isfinite().all()):
            raise TraceError(f"{name} holds NaN or Inf")


def _named_tensors(trace: AttentionTrace) -> Iterator[tuple[str, Tensor]]:
    for index, step in enumerate(trace.steps):
        tensors = [("weights", step.weights)] if isinstance(step, TokenMap) else step.tensors()
        for name, tensor in tensors:
            yield f"{_label(index, step)}: {name}", tensor
    for field in TOKEN_FIELDS:
        for modality, tensor in (getattr(trace, field) or {}).items():
            yield f"{field}[{modality!r}]", tensor


def _label(index: int, step: AttentionStep | TokenMap) -> str:
    if isinstance(step, TokenMap):
        return f"step {index} (token map of {step.modality})"
    return f"step {index} ({step.query} attends to {step.key})"
