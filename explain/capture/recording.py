"""Recording of one forward pass: the model passes its tensors to a recorder, and a backward pass gives their gradients.

A model asks for the active recorder, and records its tensors only if there is one::

    recorder = active_recorder()
    if recorder is not None:
        recorder.step(query="image", key="image", attention=A, residual=X, output=Y)

To get a trace, run the model in a :func:`record` block::

    with record() as recorder:
        logits = model(images, questions)
        trace = recorder.trace(logits[samples, answers], sizes={"image": n_v, "text": n_t}, valid=valid)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

import torch
from torch import Tensor

from explain.capture.gradients import Items, gradients
from explain.capture.live import LiveMap, LiveStep, pad_map
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.parts import Parts
from explain.capture.recorded import Recording
from explain.trace import AttentionTrace, Scalar, TokenMap

_ACTIVE: ContextVar[Recorder | None] = ContextVar("active_recorder", default=None)


def active_recorder() -> Recorder | None:
    """Return the recorder of the innermost :func:`record` block, or None outside of such blocks."""
    return _ACTIVE.get()


@contextmanager
def record(inputs: Mapping[str, Tensor] | None = None, needs: Needs = EVERYTHING) -> Iterator[Recorder]:
    """Record the forward passes that run inside the block.

    Inside the block, gradients are enabled if any is needed, and disabled otherwise. :meth:`Recorder.trace` can be
    called inside or after the block. An error inside the block drops the recording.

    Args:
        inputs: Embeddings of each modality, [B, n, D], that replace those of the model.
        needs: What is kept and differentiated.
    """
    recorder = Recorder(inputs, needs)
    token = _ACTIVE.set(recorder)
    try:
        with torch.set_grad_enabled(needs.gradients):
            yield recorder
    except BaseException:
        recorder.clear()
        raise
    finally:
        _ACTIVE.reset(token)


class Recorder:
    """A recorder of the attention steps of a forward pass, which turns them into an :class:`AttentionTrace`.

    Args:
        inputs: Embeddings that replace those of the model.
        needs: What is kept and differentiated. A step that is no longer needed is dropped immediately.
    """

    def __init__(self, inputs: Mapping[str, Tensor] | None = None, needs: Needs = EVERYTHING) -> None:
        self.needs = needs
        self._replacements = inputs or {}
        self._recording = Recording(needs)
        self._stages = 0

    def watch(self, x: Tensor) -> Tensor:
        """Return a tensor from which the gradient graph can start.

        This is ``x`` itself if it requires grad or if no gradient is needed, otherwise a leaf with the values of ``x``.
        """
        return x if x.requires_grad or not self.needs.gradients else x.detach().requires_grad_()

    def inputs(self, modality: str, embeddings: Tensor, start: bool = True) -> Tensor:
        """Record a modality's input token embeddings, [B, n, D], as they enter the first block.

        A norm that follows the embeddings directly must come before, because it ignores the length of its input. The
        model must continue with the returned tensor.

        Args:
            modality: Name of the modality.
            embeddings: Its embeddings.
            start: Whether the gradient graph starts here. Use False if :meth:`start` is called later; the graph then
                starts here only if the gradients of the inputs are needed.
        """
        if modality in self._replacements:  # they may begin with a token that the model prepends later
            embeddings = self._replacements[modality][:, -embeddings.shape[1] :]
        if start or "inputs_grad" in self.needs.trace:
            embeddings = self.watch(embeddings)
        if {"inputs", "inputs_grad"} & self.needs.trace:
            self._recording.inputs[modality] = embeddings
        return embeddings

    def start(self, modality: str, x: Tensor) -> Tensor:
        """Start the gradient graph at the residual stream, [B, n, D], that enters the first differentiated block.

        The model must continue with the returned tensor. The graph starts here once per modality. Everything before it
        is differentiated only if the gradients of the inputs are needed.
        """
        started = self._recording.started
        if modality in started or "inputs_grad" in self.needs.trace or not self.needs.gradients:
            return x
        started.add(modality)
        return x.detach().requires_grad_()

    def prepend(self, modality: str) -> None:
        """Record that the model adds a token, such as a learnt one, at the front of a modality's stream.

        In the trace, the steps and inputs recorded earlier contain this token too, as a token that attends to nothing.
        """
        self._recording.prepended.append((modality, self._recording.count))

    def new_stage(self) -> int:
        """Return a new stage number; pass it as ``stage`` to each of the steps that run in parallel."""
        self._stages += 1
        return self._stages

    def step(
        self,
        *,
        query: str,
        key: str,
        attention: Tensor | Parts,
        residual: Tensor | Parts,
        output: Tensor | Parts,
        stage: int | None = None,
    ) -> None:
        """Record one attention block, in the order in which the model runs it.

        A model that computes a tensor in pieces, or orders its tokens otherwise, passes it as :class:`Parts`.

        Args:
            query: Modality s, or ``"joint"``.
            key: Modality q.
            attention: A, [B, H, n_s, n_q], the same tensor object that multiplies the values.
            residual: X, [B, n_s, D], the same tensor object that enters both the skip connection and the block.
            output: Y, [B, n_s, D], the same tensor object that is added to X.
            stage: A number from :meth:`new_stage`, shared by the steps that run in parallel; None if the step runs
                alone.

        Raises:
            TraceError: A tensor that must be differentiated has no gradient graph; call :meth:`watch` on the embeddings
                before the first block.
        """
        tensors = {
            name: Parts.of(value)
            for name, value in {"attention": attention, "residual": residual, "output": output}.items()
        }
        versions = {name: value.versions for name, value in tensors.items()}
        stage = self.new_stage() if stage is None else stage
        step = LiveStep(query, key, stage, self._recording.count, tensors, versions)
        step.check_graph(self.needs.every)
        self._recording.add(step)

    def token_map(self, step: TokenMap, merged: Tensor | Parts | None = None) -> None:
        """Record a token map, after the attention steps recorded so far.

        Args:
            step: The map.
            merged: The old tokens, [B, n_old, D], if their importance decides how they are merged. They must require
                grad; without gradients, ``step.weights`` are used as they are.
        """
        parts = None if merged is None or not self.needs.gradients else Parts.of(merged)
        self._recording.maps.append(LiveMap(self._recording.count, step, parts))

    def live(self) -> list[Tensor]:
        """Return the recorded tensors that will be differentiated, with their graph."""
        parts = [value for step in self._recording.steps for value in step.tensors.values() if value.requires_grad]
        return [tensor for value in parts for tensor in value.tensors]

    def trace(
        self,
        target: Tensor,
        sizes: Mapping[str, int],
        valid: Tensor | None = None,
        sample_ids: Sequence[int | str] | None = None,
        picture_ids: Sequence[int | str] | None = None,
        attention_relevance: Mapping[int, Tensor] | None = None,
        scalar: Scalar | None = None,
        wanted: Tensor | None = None,
        retain: bool = False,
        grid: tuple[int, int] | None = None,
    ) -> AttentionTrace:
        """Differentiate y with respect to the recorded tensors, and return the trace.

        Gradients of tensors that y does not depend on are 0. With T scalars per sample, the trace has one item for each
        scalar to explain, M in all, ordered by sample; values of a sample are repeated for its items.

        Args:
            target: y, [B] for one scalar per sample or [B, T] for T of them; samples of a batch must not interact.
            sizes: Number of tokens of each modality, in joint order.
            valid: bool [B, N], False for padding; or [B, T, N] if the scalars of a sample see different tokens.
            sample_ids: Names of the B samples, which seed random draws.
            picture_ids: Ids of the images that the B samples show.
            attention_relevance: LRP relevance by step number, from :meth:`attention_relevance` of another recording
                with the same ``wanted``.
            scalar: Computes y of every item from the inputs (``AttentionTrace.scalar``).
            wanted: bool [B, T], True for the scalars to explain; None explains all.
            retain: Whether to keep the recording and its graph for another target. If False, both are dropped, even
                after an error.
            grid: Rows and columns of the patches, which are the last image tokens.

        Raises:
            TraceError: Nothing was recorded, the target does not fit the recording, ``wanted`` selects nothing, a
                recorded tensor was changed in place, or the trace is not valid (see :class:`AttentionTrace`).
        """
        try:
            self._recording.check(target)
            items = Items.of(target, wanted)
            steps, maps, inputs, grads = self._recording.detached(target, items, retain)
            if attention_relevance is not None:
                numbers = [step.number for step in self._recording.steps]
                of_step = [attention_relevance.get(number) for number in numbers]
                steps = [replace(s, attention_relevance=r) for s, r in zip(steps, of_step, strict=True)]
            in_order = self._recording.in_order(steps, maps)
            if valid is not None:
                valid = items.repeated(valid) if valid.ndim == 2 else valid[items.sample, items.place]
            names = [
                None if each is None else [each[sample] for sample in items.sample.tolist()]
                for each in (sample_ids, picture_ids)
            ]
            scalar = scalar if "scalar" in self.needs.trace else None
            return AttentionTrace(dict(sizes), in_order, valid, inputs, grads, names[0], scalar, names[1], grid)
        finally:
            if not retain:
                self.clear()

    def attention_relevance(self, target: Tensor, wanted: Tensor | None = None) -> dict[int, Tensor]:
        """Return what each item of the target propagates back to the attention of every step with a gradient graph.

        After a forward pass within :func:`explain.lrp.lrp`, this is the LRP relevance of A. The recording is dropped.

        Args:
            target: y, [B] or [B, T].
            wanted: bool [B, T], True for the scalars to explain; None explains all.

        Returns:
            One tensor [M, H, n_s, n_q] for each step number.

        Raises:
            TraceError: Nothing was recorded, the target does not fit the recording, ``wanted`` selects nothing, or a
                recorded tensor was changed in place.
        """
        try:
            recording = self._recording
            recording.check(target)
            steps = [step for step in recording.steps if step.tensors["attention"].requires_grad]
            live = [step.tensors["attention"] for step in steps]
            found = gradients(target, live, Items.of(target, wanted), retain=False, at_once=1)
            return {
                step.number: pad_map(relevance, *recording.missing_tokens(step.number, step.query, step.key))
                for relevance, step in zip(found, steps, strict=True)
            }
        finally:
            self.clear()

    def clear(self) -> None:
        """Drop the recording."""
        self._recording = Recording(self.needs)
