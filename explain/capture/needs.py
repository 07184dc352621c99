"""What a trace has to hold for the explainers that read it: nothing else is recorded, nothing else differentiated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from explain.explainers.base.explainer import Explainer
from explain.step import MAPS, STREAMS
from explain.trace import TRACE_FIELDS, TraceError

ATTENTION, GRADIENT, RELEVANCE = "attention", "attention_grad", "attention_relevance"


@dataclass(frozen=True)
class Needs:
    """Names of fields: of every step, of the last attentions alone (``AttentionTrace.last_steps``), and of the trace.

    A step that is not the last of its kind is recorded only where ``every`` holds its attention. The attention of the
    last steps is always there.

    Raises:
        TraceError: a name is no field of a step or a trace.
    """

    every: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    trace: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = (self.every | self.last) - {*MAPS, *STREAMS} | self.trace - {*TRACE_FIELDS}
        if unknown:
            raise TraceError(f"needs: {min(unknown)} is no field of a trace or of its steps")

    @classmethod
    def of(cls, explainers: Iterable[Explainer]) -> Needs:
        """The union of what explainers read (``Explainer.needs`` and ``Explainer.last_only``)."""
        union = cls()
        for explainer in explainers:
            of_trace = frozenset(explainer.needs) & {*TRACE_FIELDS}
            of_step = frozenset(explainer.needs) - of_trace
            if explainer.last_only:
                union |= cls(last=of_step, trace=of_trace)
            else:
                union |= cls(every=of_step | {ATTENTION}, trace=of_trace)
        return union

    def __or__(self, other: Needs) -> Needs:
        """What the two need together."""
        return Needs(self.every | other.every, self.last | other.last, self.trace | other.trace)

    @classmethod
    def everything(cls, lrp: bool = False) -> Needs:
        """All that a trace can hold; LRP relevance costs a pass of its own, and is left out unless asked for."""
        fields = frozenset({*MAPS, *STREAMS})
        return cls(fields if lrp else fields - {RELEVANCE}, frozenset(), frozenset(TRACE_FIELDS))

    def of_step(self, last: bool) -> frozenset[str]:
        """The fields of a step that is the last of its kind, or is not."""
        return self.every | self.last if last else self.every

    @property
    def all_steps(self) -> bool:
        """Whether steps before the last ones are recorded."""
        return ATTENTION in self.every

    @property
    def gradients_of_all_steps(self) -> bool:
        """Whether steps before the last ones are differentiated."""
        return _any_gradient(self.every)

    @property
    def gradients(self) -> bool:
        """Whether a backward pass is needed."""
        return _any_gradient(self.every | self.last | self.trace)

    @property
    def lrp(self) -> Needs | None:
        """What a second recording under :func:`explain.lrp.lrp` differentiates; None where no relevance is needed."""
        if RELEVANCE in self.every:
            return Needs(every=frozenset({ATTENTION, GRADIENT}))
        return Needs(last=frozenset({GRADIENT})) if RELEVANCE in self.last else None


def _any_gradient(fields: frozenset[str]) -> bool:
    return any(field.endswith("_grad") for field in fields)


EVERYTHING = Needs.everything()
# Gradients through the model from given inputs, for ``AttentionTrace.scalar``.
FROM_INPUTS = Needs(trace=frozenset({"inputs_grad"}))
