"""Traces of CLIPmapper: one recorded forward pass and one backward pass for a whole batch of pictures and questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from explain.lrp import lrp
from explain.recording import record
from explain.targets import Target, given, predicted
from explain.trace import AttentionTrace


@dataclass(frozen=True, eq=False)
class Traced:
    """A trace in joint order (image tokens, then text tokens) and what its positions mean.

    ``rows`` [B] is the joint position of the read-out token, whose row of R explains the answer; ``logits``
    [B, answers]; ``removable`` bool [B, N] is true at patches and sub-words, false at the class, read-out, start and
    end tokens and at padding.
    """

    trace: AttentionTrace
    rows: Tensor
    logits: Tensor
    removable: Tensor

    @property
    def answers(self) -> Tensor:
        """The preferred answer's index, [B]."""
        return self.logits.argmax(-1)

    def scores(self, scores: Tensor, modality: str) -> Tensor:
        """The part of scores [B, N] that belongs to patches, [B, P], or to the text stream, [B, n_t]."""
        span = self.trace.span(modality)
        return scores[:, span.stop - self.patches : span.stop] if modality == "image" else scores[:, span]

    @property
    def patches(self) -> int:
        """P."""
        return int(self.removable[0, self.trace.span("image")].sum())


def trace_vqa(
    model: CLIPMapperVQA,
    pixels: Tensor,
    questions: TextBatch,
    target: Target = predicted,
    needs: Collection[str] = (),
    sample_ids: Sequence[int | str] | None = None,
) -> Traced:
    """The trace of a batch.

    Args:
        model: In evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions.
        target: Which logit is explained; by default that of the answer the model prefers.
        needs: The fields that the explainers name in ``Explainer.needs``: ``attention_relevance`` costs a second pass.
        sample_ids: Names of the samples, for what is drawn at random.

    Raises:
        TraceError: a tensor holds NaN or Inf.
        ValueError: the target does not fit the logits.
    """
    removable, sizes = _positions(model, questions)
    with record() as recorder:
        logits = model(pixels, questions)
        y = given(logits.argmax(-1)) if target is predicted else target  # the same answer in every later pass
        relevance = None
        if "attention_relevance" in needs:
            with record() as again:
                with lrp():
                    propagating = model(pixels, questions)
                relevance = again.attention_relevance(y(propagating))

        def scalar(inputs: Mapping[str, Tensor]) -> Tensor:
            with record(inputs):
                return y(model(pixels, questions))

        valid = _valid(model, questions)
        trace = recorder.trace(y(logits), sizes, valid, sample_ids, attention_relevance=relevance, scalar=scalar)
    return Traced(trace, _readout(model, questions, sizes["image"]), logits.detach(), removable)


def _positions(model: CLIPMapperVQA, questions: TextBatch) -> tuple[Tensor, dict[str, int]]:
    """Which joint positions may be removed, and the tokens of each modality."""
    valid = _valid(model, questions)
    patches = model.encoder.vision.token_count - 1
    kept = valid.shape[1] - questions.valid.shape[1] - patches  # class token, and a read-out token before it
    removable = valid.clone()
    removable[:, :kept] = False
    removable[:, kept + patches] = False
    removable.scatter_(1, (kept + patches + questions.valid.sum(1) - 1)[:, None], False)
    return removable, {"image": kept + patches, "text": questions.valid.shape[1]}


def _valid(model: CLIPMapperVQA, questions: TextBatch) -> Tensor:
    """bool [B, N] in joint order."""
    count = model.encoder.vision.token_count + (model.vqa.mapper.read.learnt is not None)
    return torch.cat([questions.valid.new_ones(len(questions.valid), count), questions.valid], 1)


def _readout(model: CLIPMapperVQA, questions: TextBatch, image_tokens: int) -> Tensor:
    """The read-out token's joint position, [B]."""
    read = model.vqa.mapper.read
    return read.place(questions.valid) + (image_tokens if read.stream == "text" else 0)
