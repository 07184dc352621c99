"""The fields that a trace must hold for given explainers; a recording keeps and differentiates nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from explain.explainers.base.explainer import Explainer, Precision
from explain.step import MAPS, STREAMS
from explain.trace import TRACE_FIELDS, TraceError

ATTENTION, GRADIENT, RELEVANCE = "attention", "attention_grad", "attention_relevance"
_PRECISIONS = (None, "model", "auto", "float64")  # in ascending order


@dataclass(frozen=True)
class Needs:
    """Names of the fields to record, of every step, of the last steps only, and of the trace.

    ``AttentionTrace.last_steps`` defines the last steps. Their attention is always recorded. The other steps are
    recorded only if ``every`` contains ``"attention"``.

    Raises:
        TraceError: A name is not a field of a step or of a trace.
    """

    every: frozenset[str] = frozenset()  #: fields of every step
    last: frozenset[str] = frozenset()  #: further fields of the last steps
    trace: frozenset[str] = frozenset()  #: fields of the trace
    precision: Precision | None = None  #: precision of the LRP pass; None if nothing asks for one, which means "auto"

    def __post_init__(self) -> None:
        unknown = (self.every | self.last) - {*MAPS, *STREAMS} | self.trace - {*TRACE_FIELDS}
        if unknown:
            raise TraceError(f"needs: {min(unknown)} is not a field of a trace or of its steps")

    @classmethod
    def of(cls, explainers: Iterable[Explainer]) -> Needs:
        """Return the union of what the explainers read (``Explainer.needs`` and ``Explainer.last_only``)."""
        union = cls()
        for explainer in explainers:
            of_trace = frozenset(explainer.needs) & {*TRACE_FIELDS}
            of_step = frozenset(explainer.needs) - of_trace
            precision = explainer.precision if RELEVANCE in of_step else None
            if explainer.last_only:
                union |= cls(last=of_step, trace=of_trace, precision=precision)
            else:
                union |= cls(every=of_step | {ATTENTION}, trace=of_trace, precision=precision)
        return union

    def __or__(self, other: Needs) -> Needs:
        """Return what both need together; of two precisions, the higher one."""
        precision = max(self.precision, other.precision, key=_PRECISIONS.index)
        return Needs(self.every | other.every, self.last | other.last, self.trace | other.trace, precision)

    @classmethod
    def everything(cls, lrp: bool = False) -> Needs:
        """Return all that a trace can hold; LRP relevance, which needs a separate pass, only if ``lrp``."""
        fields = frozenset({*MAPS, *STREAMS})
        return cls(fields if lrp else fields - {RELEVANCE}, frozenset(), frozenset(TRACE_FIELDS))

    def of_step(self, last: bool) -> frozenset[str]:
        """Return the fields of a step; ``last`` says whether it is the last of its kind."""
        return self.every | self.last if last else self.every

    @property
    def all_steps(self) -> bool:
        """Whether steps other than the last ones are recorded."""
        return ATTENTION in self.every

    @property
    def gradients_of_all_steps(self) -> bool:
        """Whether steps other than the last ones are differentiated."""
        return _any_gradient(self.every)

    @property
    def gradients(self) -> bool:
        """Whether a backward pass is needed."""
        return _any_gradient(self.every | self.last | self.trace)

    @property
    def lrp(self) -> Needs | None:
        """Needs of the second recording under :func:`explain.lrp.lrp`; None if no LRP relevance is needed."""
        if RELEVANCE in self.every:
            return Needs(every=frozenset({ATTENTION, GRADIENT}))
        # It records the same steps as the first recording, so that both number them alike.
        same = self.every & {ATTENTION}
        return Needs(every=same, last=frozenset({GRADIENT})) if RELEVANCE in self.last else None


def _any_gradient(fields: frozenset[str]) -> bool:
    return any(field.endswith("_grad") for field in fields)


EVERYTHING = Needs.everything()
# For ``AttentionTrace.scalar``: gradients with respect to given inputs, and no steps.
FROM_INPUTS = Needs(trace=frozenset({"inputs_grad"}))
