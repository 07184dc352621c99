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

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from explain.capture.gradients import Items, gradients
from explain.trace import AttentionStep, AttentionTrace, Scalar, TraceError

_ACTIVE: ContextVar["Recorder | None"] = ContextVar("active_recorder", default=None)


def active_recorder() -> "Recorder | None":
    """The recorder of the innermost :func:`record` block, or None outside of any."""
    return _ACTIVE.get()


@contextmanager
def record(inputs: Mapping[str, Tensor] | None = None) -> Iterator["Recorder"]:
    """Record the forward passes run inside the block, with gradients enabled; on leaving, no recorder is active.

    :meth:`Recorder.trace` may be called inside the block or after it. An error inside drops what was recorded.

    Args:
        inputs: Token embeddings [B, n, D] of a modality that the model goes on with instead of its own, as
            ``AttentionTrace.inputs`` holds them.
    """
    recorder = Recorder(inputs)
    token = _ACTIVE.set(recorder)
    try:
        with torch.enable_grad():
            yield recorder
    except BaseException:
        recorder.clear()
        raise
    finally:
        _ACTIVE.reset(token)


@dataclass(frozen=True, eq=False)
class _LiveStep:
    """A step's tensors while they hang in the graph."""

    query: str
    key: str
    stage: int
    tensors: dict[str, Tensor]  # attention, residual, output
    versions: dict[str, int]  # how often each had been written in place when it was handed over


class Recorder:
    """Collects the attention steps of a forward pass and turns them into an :class:`AttentionTrace`."""

    def __init__(self, inputs: Mapping[str, Tensor] | None = None) -> None:
        self._given = inputs or {}
        self._steps: list[_LiveStep] = []
        self._inputs: dict[str, Tensor] = {}
        self._prepended: list[tuple[str, int]] = []  # modality, steps recorded before
        self._stages = 0

    def watch(self, x: Tensor) -> Tensor:
        """``x`` itself if it requires grad, else a leaf that does: the graph of frozen encoders starts there."""
        return x if x.requires_grad else x.detach().requires_grad_()

    def inputs(self, modality: str, embeddings: Tensor) -> Tensor:
        """Record a modality's input token embeddings [B, n, D]; the model must go on with the returned tensor."""
        if modality in self._given:  # which may begin with a prepended token that is not yet there
            embeddings = self._given[modality][:, -embeddings.shape[1] :]
        self._inputs[modality] = self.watch(embeddings)
        return self._inputs[modality]

    def prepend(self, modality: str) -> None:
        """A modality's stream grows by a token of the model's own at its front.

        In the trace the steps and the inputs recorded before have that token too, as one that attends to nothing.
        """
        self._prepended.append((modality, len(self._steps)))

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
            TraceError: a tensor has no gradient graph; :meth:`watch` the embeddings before the first block.
        """
        tensors = {"attention": attention, "residual": residual, "output": output}
        for name, tensor in tensors.items():
            if not tensor.requires_grad:
                raise TraceError(
                    f"step {len(self._steps)} ({query} attends to {key}): {name} requires no grad; watch() the "
                    "embeddings before the first block, and do not run it under no_grad"
                )
        versions = {name: tensor._version for name, tensor in tensors.items()}
        stage = self.new_stage() if stage is None else stage
        self._steps.append(_LiveStep(query, key, stage, tensors, versions))

    def trace(
        self,
        target: Tensor,
        sizes: Mapping[str, int],
        valid: Tensor | None = None,
        sample_ids: Sequence[int | str] | None = None,
        attention_relevance: Sequence[Tensor] | None = None,
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
            attention_relevance: Each step's LRP relevance, from :meth:`attention_relevance` of another recording with
                the same scalars wanted.
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
                steps = [replace(s, attention_relevance=r) for s, r in zip(steps, attention_relevance, strict=True)]
            if valid is not None:
                valid = items.repeated(valid) if valid.ndim == 2 else valid[items.sample, items.place]
            if sample_ids is not None:
                sample_ids = [sample_ids[sample] for sample in items.sample.tolist()]
            return AttentionTrace(dict(sizes), steps, valid, inputs, grads, sample_ids, scalar)
        finally:
            if not retain:
                self.clear()

    def attention_relevance(self, target: Tensor, wanted: Tensor | None = None) -> list[Tensor]:
        """What each item of the target passes back to every step's A, [M, H, n_s, n_q], in the order of the steps.

        After a forward pass within :class:`explain.lrp.lrp` that is its LRP relevance. The recording is dropped.

        Raises:
            TraceError: as :meth:`trace`.
        """
        try:
            self._check(target)
            live = [step.tensors["attention"] for step in self._steps]
            found = gradients(target, live, Items.of(target, wanted), retain=False, batched=False)
            return [
                pad_map(relevance, *self._missing(index, step.query, step.key))
                for index, (relevance, step) in enumerate(zip(found, self._steps, strict=True))
            ]
        finally:
            self.clear()

    def clear(self) -> None:
        """Drop all that was recorded."""
        self._steps.clear()
        self._inputs.clear()
        self._prepended.clear()

    def _missing(self, index: int, *modalities: str) -> list[int]:
        """How many tokens each modality's stream grew by after a step was recorded."""
        return [sum(name == modality and index < count for name, count in self._prepended) for modality in modalities]

    def _check(self, target: Tensor) -> None:
        if not self._steps:
            raise TraceError("nothing was recorded: the model handed over no attention step inside record()")
        batch = self._steps[0].tensors["attention"].shape[0]
        if target.ndim not in (1, 2) or len(target) != batch:
            raise TraceError(
                f"target: expected one scalar a sample, [{batch}], or several, [{batch}, T], got {list(target.shape)}"
            )
        if target.grad_fn is None:
            raise TraceError("target has no gradient graph: compute it from the model's output, not under no_grad")
        for index, step in enumerate(self._steps):
            for name, tensor in step.tensors.items():
                if tensor._version != step.versions[name]:
                    raise TraceError(
                        f"step {index} ({step.query} attends to {step.key}): {name} was changed in place after it was "
                        "recorded"
                    )

    def _gradients(
        self, target: Tensor, items: Items, retain: bool
    ) -> tuple[list[AttentionStep], dict[str, Tensor] | None, dict[str, Tensor] | None]:
        """Steps, inputs and gradients of inputs, all detached."""
        live = [tensor for step in self._steps for tensor in step.tensors.values()] + list(self._inputs.values())
        grads = iter(gradients(target, live, items, retain))
        steps = [
            _detached(step, items, grads, *self._missing(index, step.query, step.key))
            for index, step in enumerate(self._steps)
        ]
        if not self._inputs:
            return steps, None, None
        missing = {modality: self._missing(-1, modality)[0] for modality in self._inputs}
        inputs = {m: pad_stream(items.repeated(x.detach()), missing[m]) for m, x in self._inputs.items()}
        return steps, inputs, {m: pad_stream(grad, missing[m]) for m, grad in zip(inputs, grads, strict=True)}


def _detached(step: _LiveStep, items: Items, grads: Iterator[Tensor], queries: int, keys: int) -> AttentionStep:
    """The step with its tensors detached and their gradients, taken from ``grads`` in the tensors' order.

    ``queries`` and ``keys`` are the tokens that its modalities lack at their front.
    """
    tensors = {name: items.repeated(tensor.detach()) for name, tensor in step.tensors.items()}
    tensors |= {f"{name}_grad": next(grads) for name in step.tensors}
    whole = {
        name: pad_map(tensor, queries, keys) if name.startswith("attention") else pad_stream(tensor, queries)
        for name, tensor in tensors.items()
    }
    return AttentionStep(query=step.query, key=step.key, stage=step.stage, **whole)


def pad_map(attention: Tensor, queries: int, keys: int) -> Tensor:
    """Zeros for tokens missing at the front: [B, H, n_s, n_q] → [B, H, queries + n_s, keys + n_q]."""
    return pad(attention, (keys, 0, queries, 0)) if queries or keys else attention


def pad_stream(stream: Tensor, tokens: int) -> Tensor:
    """Zeros for tokens missing at the front: [B, n, D] → [B, tokens + n, D]."""
    return pad(stream, (0, 0, tokens, 0)) if tokens else stream
