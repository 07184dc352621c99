"""Traces of CLIPmapper: one recorded forward pass and one backward pass for a whole batch of pictures and questions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.encoder.pieces import clip_words
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.passes import capture
from explain.targets import Target, predicted
from explain.traced import Traced, grid_boxes


def trace_vqa(
    model: CLIPMapperVQA,
    pixels: Tensor,
    questions: TextBatch,
    target: Target = predicted,
    needs: Needs = EVERYTHING,
    sample_ids: Sequence[int | str] | None = None,
    picture_ids: Sequence[int | str] | None = None,
) -> Traced:
    """The trace of a batch in joint order: image tokens, then text tokens.

    Args:
        model: In evaluation mode.
        pixels: [B, 3, H, W].
        questions: B questions.
        target: Which logit is explained; by default that of the answer the model prefers.
        needs: What the trace holds; LRP relevance costs a second pass.
        sample_ids: Names of the samples, for what is drawn at random.
        picture_ids: Whose picture each sample shows.

    Raises:
        TraceError: a tensor holds NaN or Inf.
        ValueError: the target does not fit the logits.
    """
    removable, sizes = _positions(model, questions)
    valid = _valid(model, questions)
    trace, logits = capture(lambda _: model(pixels, questions), target, needs, lambda: (sizes, valid), sample_ids)
    visual, tokenizer = model.encoder.vision.visual, model.encoder.tokenizer
    asked = [ids[valid][1:-1].tolist() for ids, valid in zip(questions.ids, questions.valid, strict=True)]
    return Traced(
        trace=trace,
        logits=logits,
        removable=removable,
        readout=dict.fromkeys(sizes, _readout(model, questions, sizes["image"])),
        grid=tuple(visual.grid_size),
        boxes=grid_boxes(visual.grid_size, visual.patch_size, pixels.device),
        words=[clip_words(ids, tokenizer, sizes["image"] + 1) for ids in asked],
        picture_ids=picture_ids,
    )


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
