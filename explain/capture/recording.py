"""A recording of one forward pass: the model hands over its live tensors, one backward pass gives their gradients.

A model asks for the recorder that is at work, and hands over what it has only where there is one::

    recorder = active_recorder()
    if recorder is not None:
        recorder.step(query="image", key="image", attention=A, residual=X, output=Y)

Who wants the trace records around the forward pass::

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
from explain.capture.live import LiveStep, pad_map, pad_stream
from explain.capture.needs import EVERYTHING, Needs
from explain.step import AttentionStep, TraceError, last_steps, replaces
from explain.trace import AttentionTrace, Scalar

_ACTIVE: ContextVar[Recorder | None] = ContextVar("active_recorder", default=None)


def active_recorder() -> Recorder | None:
    """The recorder of the innermost :func:`record` block, or None outside of any."""
    return _ACTIVE.get()


@contextmanager
def record(inputs: Mapping[str, Tensor] | None = None, needs: Needs = EVERYTHING) -> Iterator[Recorder]:
    """Record the forward passes run inside the block; on leaving, no recorder is active.

    Gradients are enabled inside if any is needed, and disabled if none is. :meth:`Recorder.trace` may be called inside
    the block or after it. An error inside drops what was recorded.

    Args:
        inputs: Embeddings of each modality [B, n, D] that take the place of those that the model hands over.
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
    """Collects the attention steps of a forward pass and turns them into an :class:`AttentionTrace`.

    Args:
        inputs: Embeddings that take the place of the model's.
        needs: What is kept and differentiated; a step that nothing needs any more is dropped at once.
    """

    def __init__(self, inputs: Mapping[str, Tensor] | None = None, needs: Needs = EVERYTHING) -> None:
        self.needs = needs
        self._given = inputs or {}
        self._steps: list[LiveStep] = []
        self._inputs: dict[str, Tensor] = {}
        self._prepended: list[tuple[str, int]] = []  # modality, steps handed over before
        self._started: set[str] = set()
        self._count = 0  # steps handed over
        self._stages = 0

    def watch(self, x: Tensor) -> Tensor:
        """``x`` itself if it requires grad or no gradient is needed, else a leaf, at which the graph starts."""
        return x if x.requires_grad or not self.needs.gradients else x.detach().requires_grad_()

    def inputs(self, modality: str, embeddings: Tensor, start: bool = True) -> Tensor:
        """Record a modality's input token embeddings [B, n, D]; the model must go on with the returned tensor.

        Args:
            modality: The modality.
            embeddings: Its embeddings.
            start: The graph starts here; False where :meth:`start` is called later, and their gradients are not needed.
        """
        if modality in self._given:  # which may begin with a prepended token that is not yet there
            embeddings = self._given[modality][:, -embeddings.shape[1] :]
        if start or "inputs_grad" in self.needs.trace:
            embeddings = self.watch(embeddings)
        if {"inputs", "inputs_grad"} & self.needs.trace:
            self._inputs[modality] = embeddings
        return embeddings

    def start(self, modality: str, x: Tensor) -> Tensor:
        """The residual stream [B, n, D] that enters the first block whose gradients are needed.

        The model must go on with the returned tensor: the graph starts there, once for each modality, and what lies
        before is differentiated only where the inputs' gradients are needed.
        """
        if modality in self._started or "inputs_grad" in self.needs.trace or not self.needs.gradients:
            return x
        self._started.add(modality)
        return x.detach().requires_grad_()

    def prepend(self, modality: str) -> None:
        """A modality's stream grows by a token of the model's own at its front.

        In the trace the steps and the inputs recorded before have that token too, as one that attends to nothing.
        """
        self._prepended.append((modality, self._count))

    def new_stage(self) -> int:
        """A number for steps that run side by side: pass it as ``stage`` to each of them."""
        self._stages += 1
        return self._stages

    def step(
        self, *, query: str, key: str, attention: Tensor, residual: Tensor, output: Tensor, stage: int | None = None
    ) -> None:
        """Record one attention block, in the order in which the model runs it.

        Args:
            query: Modality s, or ``"joint"``.
            key: Modality q.
            attention: A [B, H, n_s, n_q], the very tensor that multiplies the values.
            residual: X [B, n_s, D], the very tensor that enters both the skip connection and the block.
            output: Y [B, n_s, D], the very tensor that is added to X.
            stage: The number of :meth:`new_stage` that the steps running side by side share; by default the step runs
                alone.

        Raises:
            TraceError: a tensor to be differentiated has no gradient graph; :meth:`watch` the embeddings before the
                first block.
        """
        tensors = {"attention": attention, "residual": residual, "output": output}
        versions = {name: tensor._version for name, tensor in tensors.items()}
        stage = self.new_stage() if stage is None else stage
        step = LiveStep(query, key, stage, self._count, tensors, versions)
        step.check_graph(self.needs.every)
        self._count += 1
        if self.needs.last - self.needs.every or not self.needs.all_steps:
            self._steps = [one for old in self._steps for one in self._outlived(old, step)]
        self._steps.append(step.keeping(self.needs.of_step(last=True)))

    def live(self) -> list[Tensor]:
        """The recorded tensors that are to be differentiated, with their graph."""
        return [tensor for step in self._steps for tensor in step.tensors.values() if tensor.requires_grad]

    def trace(
        self,
        target: Tensor,
        sizes: Mapping[str, int],
        valid: Tensor | None = None,
        sample_ids: Sequence[int | str] | None = None,
        attention_relevance: Mapping[int, Tensor] | None = None,
        scalar: Scalar | None = None,
        wanted: Tensor | None = None,
        retain: bool = False,
    ) -> AttentionTrace:
        """The gradients of y with respect to all that was recorded; those that do not exist are 0.

        With T scalars a sample, the trace has an item for each that is wanted, M in all, sample after sample; what
        samples have is repeated for their items.

        Args:
            target: y, [B], one scalar per sample, or [B, T], T of them; samples of a batch must not interact.
            sizes: Tokens of each modality in joint order.
            valid: bool [B, N], False for padding; or [B, T, N], where the scalars of a sample see different tokens.
            sample_ids: Names of the B samples, for what is drawn at random.
            attention_relevance: LRP relevance by step, from :meth:`attention_relevance` of another recording with the
                same scalars wanted.
            scalar: y of every item as a function of the inputs (``AttentionTrace.scalar``).
            wanted: bool [B, T], the scalars to explain; by default all.
            retain: Keep the recording and its graph for another target; by default both are dropped, also after an
                error.

        Raises:
            TraceError: nothing was recorded, the target fits nothing recorded, nothing is wanted, a recorded tensor was
                changed in place since, or the trace is not valid (see :class:`AttentionTrace`).
        """
        try:
            self._check(target)
            items = Items.of(target, wanted)
            steps, inputs, grads = self._gradients(target, items, retain)
            if attention_relevance is not None:
                numbers = [step.number for step in self._steps]
                of_step = [attention_relevance.get(number) for number in numbers]
                steps = [replace(s, attention_relevance=r) for s, r in zip(steps, of_step, strict=True)]
            if valid is not None:
                valid = items.repeated(valid) if valid.ndim == 2 else valid[items.sample, items.place]
            if sample_ids is not None:
                sample_ids = [sample_ids[sample] for sample in items.sample.tolist()]
            scalar = scalar if "scalar" in self.needs.trace else None
            return AttentionTrace(dict(sizes), steps, valid, inputs, grads, sample_ids, scalar)
        finally:
            if not retain:
                self.clear()

    def attention_relevance(self, target: Tensor, wanted: Tensor | None = None) -> dict[int, Tensor]:
        """What each item of the target passes back to every recorded step's A, [M, H, n_s, n_q], by the step's number.

        After a forward pass within :class:`explain.lrp.lrp` that is its LRP relevance. The recording is dropped.

        Raises:
            TraceError: as :meth:`trace`.
        """
        try:
            self._check(target)
            live = [step.tensors["attention"] for step in self._steps]
            found = gradients(target, live, Items.of(target, wanted), retain=False, at_once=1)
            return {
                step.number: pad_map(relevance, *self._missing(step.number, step.query, step.key))
                for relevance, step in zip(found, self._steps, strict=True)
            }
        finally:
            self.clear()

    def clear(self) -> None:
        """Drop all that was recorded."""
        self._steps.clear()
        self._inputs.clear()
        self._prepended.clear()
        self._started.clear()
        self._count = 0

    def _outlived(self, old: LiveStep, new: LiveStep) -> list[LiveStep]:
        """What stays of a step after a newer one."""
        if not replaces(new, old):
            return [old]
        return [old.keeping(self.needs.every)] if self.needs.all_steps else []

    def _missing(self, number: int, *modalities: str) -> list[int]:
        """How many tokens each modality's stream grew by after a step was recorded."""
        return [sum(name == modality and number < count for name, count in self._prepended) for modality in modalities]

    def _check(self, target: Tensor) -> None:
        if not self._steps:
            raise TraceError("nothing was recorded: the model handed over no attention step inside record()")
        batch = self._steps[0].tensors["attention"].shape[0]
        if target.ndim not in (1, 2) or len(target) != batch:
            raise TraceError(
                f"target: expected one scalar a sample, [{batch}], or several, [{batch}, T], got {list(target.shape)}"
            )
        if self.needs.gradients and target.grad_fn is None:
            raise TraceError("target has no gradient graph: compute it from the model's output, not under no_grad")
        for step, fields in self._with_fields():
            step.check_versions()
            step.check_graph(fields)

    def _with_fields(self) -> list[tuple[LiveStep, frozenset[str]]]:
        """The steps, and the fields that each is to have in the trace."""
        last = last_steps(self._steps)
        return [(step, self.needs.of_step(place in last)) for place, step in enumerate(self._steps)]

    def _gradients(
        self, target: Tensor, items: Items, retain: bool
    ) -> tuple[list[AttentionStep], dict[str, Tensor] | None, dict[str, Tensor] | None]:
        """Steps, inputs and gradients of inputs, all detached."""
        of_inputs = list(self._inputs.values()) if "inputs_grad" in self.needs.trace else []
        live = [s.tensors[name] for s, fields in self._with_fields() for name in s.differentiated(fields)]
        grads = iter(gradients(target, live + of_inputs, items, retain) if live or of_inputs else [])
        steps = [
            step.detached(fields, items, grads, *self._missing(step.number, step.query, step.key))
            for step, fields in self._with_fields()
        ]
        missing = {modality: self._missing(-1, modality)[0] for modality in self._inputs}
        inputs = {m: pad_stream(items.repeated(x.detach()), missing[m]) for m, x in self._inputs.items()}
        inputs_grad = {m: pad_stream(grad, missing[m]) for m, grad in zip(self._inputs, grads, strict=False)}
        return steps, inputs or None, inputs_grad or None
