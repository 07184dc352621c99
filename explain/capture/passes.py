"""The passes through a model that a trace needs: the recorded one, one for LRP relevance, more for ``scalar``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from explain.capture.needs import FROM_INPUTS, Needs
from explain.capture.recording import Recorder, record
from explain.lrp import lrp
from explain.targets import Target, given, predicted
from explain.trace import AttentionTrace

Run = Callable[[Recorder], Tensor]  #: runs the model, which hands its steps to the recorder, the active one → logits


def capture(
    run: Run,
    target: Target,
    needs: Needs,
    layout: Callable[[], tuple[Mapping[str, int], Tensor | None]],
    sample_ids: Sequence[int | str] | None = None,
) -> tuple[AttentionTrace, Tensor]:
    """The trace of a model and its logits [B, C], without a graph.

    Args:
        run: One pass through the model; gives the logits [B, C].
        target: y [B] as a function of the logits; ``predicted`` means the class preferred in the first pass, in every
            further pass too.
        needs: What the trace holds. ``attention_relevance`` runs the model a second time.
        layout: Tokens of each modality in joint order, and which are valid, bool [B, N]; asked after the first pass.
        sample_ids: Names of the samples, for what is drawn at random.

    Raises:
        TraceError: the model hands over no step, LRP has no rule for an operation, or a tensor holds NaN or Inf.
    """
    with record(needs=needs) as recorder:
        logits = run(recorder)
        y = given(logits.argmax(-1)) if target is predicted else target

        def scalar(inputs: Mapping[str, Tensor]) -> Tensor:
            with record(inputs, FROM_INPUTS) as again:
                return y(run(again))

        relevance = lrp_relevance(run, y, needs)
        sizes, valid = layout()
        trace = recorder.trace(y(logits), sizes, valid, sample_ids, attention_relevance=relevance, scalar=scalar)
    return trace, logits.detach()


def lrp_relevance(
    run: Run, y: Callable[[Tensor], Tensor], needs: Needs, wanted: Tensor | None = None
) -> dict[int, Tensor] | None:
    """LRP relevance of each step's attention, by the step's number, from a pass of its own; None where not needed.

    Args:
        run: One pass through the model; gives the logits.
        y: The scalars explained, [B] or [B, T], as a function of the logits.
        needs: What the trace holds.
        wanted: bool [B, T], the scalars to explain; by default all.
    """
    if needs.lrp is None:
        return None
    with record(needs=needs.lrp) as recorder:
        with lrp():
            logits = run(recorder)
        return recorder.attention_relevance(y(logits), wanted)
