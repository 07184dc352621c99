"""Checks of a trace, each with an error that names the step and the tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from explain.spans import JOINT, TraceError, span

if TYPE_CHECKING:
    from explain.trace import AttentionStep, AttentionTrace

MAPS = ("attention", "attention_grad", "attention_relevance")  # [B, H, n_s, n_q]
STREAMS = ("residual", "residual_grad", "output", "output_grad")  # [B, n_s, D]
TOKEN_FIELDS = ("inputs", "inputs_grad")  # of the trace: modality → [B, n, D]
TRACE_FIELDS = (*TOKEN_FIELDS, "scalar")


def check_sizes(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` unless every tensor has the shape that the sizes ask for."""
    if JOINT in trace.sizes or not all(isinstance(size, int) and size > 0 for size in trace.sizes.values()):
        raise TraceError(f"sizes must map modalities (none called {JOINT!r}) to positive counts: {dict(trace.sizes)}")
    if not trace.steps:
        raise TraceError("a trace needs at least one attention step")
    for index, step in enumerate(trace.steps):
        _check_step(index, step, trace)
    if trace.valid is not None:
        _expect("valid", trace.valid, (trace.batch, trace.tokens))
        if trace.valid.dtype != torch.bool:
            raise TraceError(f"valid must be bool, not {trace.valid.dtype}")
    _check_inputs(trace)
    if trace.sample_ids is not None and len(trace.sample_ids) != trace.batch:
        raise TraceError(f"sample_ids: expected {trace.batch} names, got {len(trace.sample_ids)}")


def check_stages(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` if two steps that run side by side write the same rows of R."""
    for stage in trace.stages():
        queries = [step.query for step in stage]
        if len(set(queries)) < len(queries) or (JOINT in queries and len(queries) > 1):
            raise TraceError(
                f"stage {stage[0].stage}: steps that run side by side need different query modalities, got {queries}"
            )


def check_finite(trace: AttentionTrace) -> None:
    """Raise :class:`TraceError` for NaN or Inf; one look at the device for all tensors together."""
    named = list(_named_tensors(trace))
    sums = torch.stack([tensor.detach().sum().float() for _, tensor in named])
    if bool(sums.isfinite().all()):
        return
    # What the forward pass gave comes first: it is the cause of what is wrong with gradients.
    for name, tensor in sorted(named, key=lambda pair: "_grad" in pair[0] or "_relevance" in pair[0]):
        if not bool(tensor.isfinite().all()):
            raise TraceError(f"{name} holds NaN or Inf")


def check_fields(trace: AttentionTrace, fields: tuple[str, ...], by: str) -> None:
    """Raise :class:`TraceError` for the first of ``fields`` that is missing, in the trace or in a step."""
    for field in fields:
        if field in TRACE_FIELDS:
            if getattr(trace, field) is None:
                raise TraceError(f"{by} needs {field}, which this trace lacks")
            continue
        for index, step in enumerate(trace.steps):
            if getattr(step, field) is None:
                raise TraceError(f"{by} needs {field}, which {_label(index, step)} lacks")


def check_rows(trace: AttentionTrace, rows: Tensor) -> Tensor:
    """The row indices [B] on the trace's device; raise :class:`TraceError` for a wrong shape, type or range."""
    rows = torch.as_tensor(rows, device=trace.device)
    _expect("rows", rows, (trace.batch,))
    if rows.is_floating_point() or rows.dtype == torch.bool:
        raise TraceError(f"rows must be integers, not {rows.dtype}")
    if int(rows.min()) < 0 or int(rows.max()) >= trace.tokens:
        raise TraceError(f"rows must lie in 0..{trace.tokens - 1}, got {rows.tolist()}")
    return rows.long()


def _check_step(index: int, step: AttentionStep, trace: AttentionTrace) -> None:
    label = _label(index, step)
    if step.is_cross and JOINT in (step.query, step.key):
        raise TraceError(f"{label}: {JOINT!r} attends to {JOINT!r} alone")
    try:
        n_s, n_q = (_length(span(trace.sizes, modality)) for modality in (step.query, step.key))
    except TraceError as error:
        raise TraceError(f"{label}: {error}") from None
    _expect(f"{label}: attention", step.attention, (trace.batch, "H", n_s, n_q))
    streams = {name: getattr(step, name) for name in STREAMS if getattr(step, name) is not None}
    width = next((stream.shape[-1] for stream in streams.values()), "D")
    for name in MAPS[1:]:
        if getattr(step, name) is not None:
            _expect(f"{label}: {name}", getattr(step, name), tuple(step.attention.shape))
    for name, stream in streams.items():
        _expect(f"{label}: {name}", stream, (trace.batch, n_s, width))


def _check_inputs(trace: AttentionTrace) -> None:
    for field in TOKEN_FIELDS:
        for modality, tensor in (getattr(trace, field) or {}).items():
            size = _length(span(trace.sizes, modality))
            _expect(f"{field}[{modality!r}]", tensor, (trace.batch, size, "D"))


def _named_tensors(trace: AttentionTrace) -> Iterator[tuple[str, Tensor]]:
    for index, step in enumerate(trace.steps):
        for name in MAPS + STREAMS:
            if (tensor := getattr(step, name)) is not None:
                yield f"{_label(index, step)}: {name}", tensor
    for field in TOKEN_FIELDS:
        for modality, tensor in (getattr(trace, field) or {}).items():
            yield f"{field}[{modality!r}]", tensor


def _expect(name: str, tensor: Tensor, shape: tuple[int | str, ...]) -> None:
    """Raise :class:`TraceError` unless ``tensor`` has ``shape``; a letter in it stands for any size."""
    fits = tensor.ndim == len(shape) and all(
        isinstance(want, str) or got == want for got, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        raise TraceError(f"{name}: expected {_shape(shape)}, got {_shape(tensor.shape)}")


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _length(tokens: slice) -> int:
    return int(tokens.stop - tokens.start)


def _label(index: int, step: AttentionStep) -> str:
    return f"step {index} ({step.query} attends to {step.key})"
