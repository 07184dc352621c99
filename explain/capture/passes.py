"""The forward passes that a trace needs: a recorded one, one for LRP relevance, and more on demand for ``scalar``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor, nn

from explain.capture.needs import FROM_INPUTS, Needs
from explain.capture.recording import Recorder, record
from explain.lrp import lrp
from explain.lrp.precision import chosen_precision, in_float64
from explain.targets import Target, given, predicted
from explain.trace import AttentionTrace

Grid = tuple[int, int]  #: rows and columns of the patches
Layout = tuple[Mapping[str, int], Tensor | None, Grid | None]  #: sizes, valid tokens and grid of a trace
Run = Callable[[Recorder], Tensor]  #: runs the model with the active recorder, and returns the logits


def capture(
    model: nn.Module,
    run: Run,
    target: Target,
    needs: Needs,
    layout: Callable[[], Layout],
    sample_ids: Sequence[int | str] | None = None,
    picture_ids: Sequence[int | str] | None = None,
    wanted: Tensor | None = None,
) -> tuple[AttentionTrace, Tensor]:
    """Run a model and return its trace and its logits, both without a graph.

    Args:
        model: The model.
        run: Runs it once and returns the logits.
        target: y [B], or [B, T] for T scalars per sample, as a function of the logits. ``predicted`` is the most likely
            class in the first pass; later passes use the same class.
        needs: Fields of the trace. ``attention_relevance`` needs a second run of the model.
        layout: Returns the number of tokens of each modality in joint order, the valid ones, bool [B, N], and the grid
            of the patches; called after the first pass.
        sample_ids: Names of the samples, which seed random draws.
        picture_ids: Ids of the images that the samples show.
        wanted: bool [B, T], True for the scalars to explain; None explains all. With several scalars per sample, the
            trace has one item for each (``Recorder.trace``), and no ``scalar``.

    Raises:
        TraceError: The model records no step, LRP has no rule for an operation, or a tensor holds NaN or Inf.
    """
    with record(needs=needs) as recorder:
        logits = run(recorder)
        y = given(logits.argmax(-1)) if target is predicted else target

        def scalar(inputs: Mapping[str, Tensor]) -> Tensor:
            with record(inputs, FROM_INPUTS) as again:
                return y(run(again))

        explained = y(logits)
        relevance = lrp_relevance(model, run, y, needs, wanted)
        sizes, valid, grid = layout()
        trace = recorder.trace(
            explained,
            sizes,
            valid,
            sample_ids,
            picture_ids,
            attention_relevance=relevance,
            scalar=scalar if explained.ndim == 1 else None,
            wanted=wanted,
            grid=grid,
        )
    return trace, logits.detach()


def lrp_relevance(
    model: nn.Module, run: Run, y: Callable[[Tensor], Tensor], needs: Needs, wanted: Tensor | None = None
) -> dict[int, Tensor] | None:
    """Return the LRP relevance of each step's attention, by step number, from a separate pass.

    The pass runs in float64 or in the model's precision (:func:`explain.lrp.precision.chosen_precision`).

    Args:
        model: The model.
        run: Runs it once and returns the logits.
        y: The explained scalars, [B] or [B, T], as a function of the logits.
        needs: Fields of the trace.
        wanted: bool [B, T], True for the scalars to explain; None explains all.

    Returns:
        The relevance, or None if ``needs`` contains no LRP relevance.
    """
    if needs.lrp is None:
        return None
    with record(needs=needs.lrp) as recorder:
        float64 = chosen_precision(model, needs.precision) == "float64"
        with lrp(), in_float64() if float64 else nullcontext():
            logits = run(recorder)
        return recorder.attention_relevance(y(logits), wanted)
