"""Base class of explainers that read only the last attention of each kind."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.explainers.base.maps import zero_padding
from explain.trace import AttentionStep, AttentionTrace, TokenMap, read_through


class LastAttention(Explainer):
    """Base class of explainers that accumulate nothing: R_sq is a map of the last step in which s attends to q.

    This includes self-attention (s = q). A joint attention sets all of R and replaces all earlier steps. If s never
    attends to q, R_sq keeps its start value: I for s = q, else 0. Token maps before a step carry its map on to the
    input tokens, and those after it replace its rows. A token map from another modality, such as queries that read an
    image, hands on what that modality's last cross-attention read.
    """

    last_only = True

    @abstractmethod
    def attention_map(self, trace: AttentionTrace, step: AttentionStep) -> Tensor:
        """Return one map for the step's heads together, [B, n_s, n_q]; entries at padding are ignored."""

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R, [B, N_rows, N], whose blocks are the maps of the last steps."""
        relevance, last, mapped = trace.identity(), trace.last_steps(), None
        for step in trace.steps:
            if isinstance(step, TokenMap):
                mapped = _after(trace, step, mapped, relevance)
                relevance = step.carry(relevance, trace.layout(step))
            elif any(step is each for each in last):
                self._write(trace, step, relevance, mapped, read_through(last, step))
        if (valid := trace.final.valid) is not None:
            relevance = relevance.where(valid[:, :, None], trace.identity() if mapped is None else mapped)
        return relevance

    def _write(
        self,
        trace: AttentionTrace,
        step: AttentionStep,
        relevance: Tensor,
        mapped: Tensor | None,
        further: Sequence[str],
    ) -> None:
        """Write R_sq of one step, in place, and R_st of the ``further`` modalities t that s reads only through q.

        ``mapped`` is of which input tokens its keys are made.
        """
        attention = zero_padding(trace, step, self.attention_map(trace, step))
        layout, columns = trace.layout(step), trace.span(step.key)
        rows, keys = layout.span(step.query), layout.span(step.key)
        for of in map(trace.span, further):
            relevance[:, rows, of] = attention @ relevance[:, keys, of]
        relevance[:, rows, columns] = attention if mapped is None else attention @ mapped[:, keys, columns]


def _after(trace: AttentionTrace, step: TokenMap, mapped: Tensor | None, relevance: Tensor) -> Tensor:
    """Return of which input tokens the tokens after a token map are made, [B, N_rows, N]."""
    mapped = trace.identity() if mapped is None else mapped
    layout = trace.layout(step)
    if step.modality != step.key:
        rows, columns = layout.span(step.key), trace.span(step.modality)
        mapped = mapped.clone()
        mapped[:, rows] = 0
        mapped[:, rows, columns] = relevance[:, rows, columns]
    return step.carry(mapped, layout)
