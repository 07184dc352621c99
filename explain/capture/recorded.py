"""What a forward pass recorded so far, and its conversion into the content of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from explain.capture.gradients import Items, gradients
from explain.capture.live import LiveMap, LiveStep, pad_stream
from explain.capture.needs import Needs
from explain.capture.parts import Parts
from explain.step import AttentionStep, TraceError, last_steps, replaces
from explain.trace import TokenMap

Step = TypeVar("Step", LiveStep, AttentionStep)


@dataclass(eq=False)
class Recording:
    """The live tensors of one forward pass, in the order in which the model passed them on."""

    needs: Needs  #: what is kept and differentiated
    steps: list[LiveStep] = field(default_factory=list)
    maps: list[LiveMap] = field(default_factory=list)
    inputs: dict[str, Tensor] = field(default_factory=dict)  #: input embeddings of each modality
    prepended: list[tuple[str, int]] = field(default_factory=list)  #: modality, number of steps recorded before
    started: set[str] = field(default_factory=set)  #: modalities whose gradient graph has started
    count: int = 0  #: number of steps recorded so far

    def add(self, step: LiveStep) -> None:
        """Keep a step, and drop what is no longer needed of the earlier ones."""
        self.count += 1
        if self.needs.last - self.needs.every or not self.needs.all_steps:
            self.steps = [kept for old in self.steps for kept in self._still_needed(old, step)]
        self.steps.append(step.keeping(self.needs.of_step(last=True)))

    def _still_needed(self, old: LiveStep, new: LiveStep) -> list[LiveStep]:
        """Return what is kept of an old step after a new one: the step, a part of it, or nothing."""
        handed = any(each.hands_on(old.query) and each.before > old.number for each in self.maps)
        if handed or not replaces(new, old):
            return [old]
        return [old.keeping(self.needs.every)] if self.needs.all_steps else []

    def missing_tokens(self, number: int, *modalities: str) -> list[int]:
        """Return how many tokens were prepended to each modality after a step was recorded."""
        return [sum(name == modality and number < count for name, count in self.prepended) for modality in modalities]

    def check(self, target: Tensor) -> None:
        """Raise :class:`TraceError` if nothing was recorded, or the target or a recorded tensor does not fit."""
        if not self.steps:
            raise TraceError("nothing was recorded: the model passed no attention step to the recorder inside record()")
        batch = self.steps[0].tensors["attention"].samples
        if target.ndim not in (1, 2) or len(target) != batch:
            raise TraceError(
                f"target: expected one scalar per sample, [{batch}], or several, [{batch}, T], got {list(target.shape)}"
            )
        if self.needs.gradients and target.grad_fn is None:
            raise TraceError("target has no gradient graph: compute it from the model's output, not under no_grad")
        for step, fields in self._steps_with_fields():
            step.check_versions()
            step.check_graph(fields)

    def in_order(self, steps: Sequence[Step], maps: Sequence[TokenMap]) -> list[Step | TokenMap]:
        """Return the steps and the token maps in the order in which the model ran them."""
        of_steps = [(step.number, 1, place) for place, step in enumerate(self.steps)]
        of_maps = [(each.before, 0, place) for place, each in enumerate(self.maps)]
        return [steps[place] if is_step else maps[place] for _, is_step, place in sorted(of_steps + of_maps)]

    def detached(
        self, target: Tensor, items: Items, retain: bool
    ) -> tuple[list[AttentionStep], list[TokenMap], dict[str, Tensor] | None, dict[str, Tensor] | None]:
        """Return the steps, the token maps, the inputs and the gradients of the inputs, all detached."""
        live = [s.tensors[name] for s, fields in self._steps_with_fields() for name in s.differentiated(fields)]
        live += [each.merged for each in self.maps if each.merged is not None]
        live += [Parts.of(x) for x in self.inputs.values()] if "inputs_grad" in self.needs.trace else []
        grads = iter(gradients(target, live, items, retain) if live else [])
        steps = [
            step.detached(fields, items, grads, *self.missing_tokens(step.number, step.query, step.key))
            for step, fields in self._steps_with_fields()
        ]
        maps = [each.finished(items, grads) for each in self.maps]
        missing = {modality: self.missing_tokens(-1, modality)[0] for modality in self.inputs}
        inputs = {m: pad_stream(items.repeated(x.detach()), missing[m]) for m, x in self.inputs.items()}
        inputs_grad = {m: pad_stream(grad, missing[m]) for m, grad in zip(self.inputs, grads, strict=False)}
        return steps, maps, inputs or None, inputs_grad or None

    def _steps_with_fields(self) -> list[tuple[LiveStep, frozenset[str]]]:
        """Return each step with the fields that it has in the trace."""
        steps = self.in_order(self.steps, [each.step for each in self.maps])
        last = [steps[place] for place in last_steps(steps)]
        return [(step, self.needs.of_step(any(step is each for each in last))) for step in self.steps]
