"""Traces of CLIPmapper for VQA: one recorded forward pass and one backward pass for a batch of questions."""

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
    """Trace a batch of questions in joint order: image tokens, then text tokens.

    Args:
        model: The model in evaluation mode.
        pixels: Preprocessed images, [B, 3, H, W].
        questions: B questions.
        target: The logit that is explained; by default that of the predicted answer.
        needs: Content of the trace; LRP relevance takes a second pass.
        sample_ids: Names of the samples, which seed random draws.
        picture_ids: Id of each sample's image.

    Raises:
        TraceError: A tensor contains NaN or Inf.
        ValueError: The target doesn't fit the logits.
    """
    removable, sizes = _removable_and_sizes(model, questions)
    valid = _valid(model, questions)
    vision, tokenizer = model.encoder.vision, model.encoder.tokenizer
    grid = vision.grid_size
    trace, logits = capture(
        model, lambda _: model(pixels, questions), target, needs, lambda: (sizes, valid, grid), sample_ids, picture_ids
    )
    inside = model.encoder.sub_words(questions)
    asked = [ids[here].tolist() for ids, here in zip(questions.ids, inside, strict=True)]
    starts = (sizes["image"] + inside.to(torch.int8).argmax(1)).tolist()
    return Traced(
        trace=trace,
        logits=logits,
        removable=removable,
        readout=dict.fromkeys(sizes, _readout(model, questions, sizes["image"])),
        grid=grid,
        boxes=grid_boxes(grid, vision.patch_size, pixels.device),
        words=[clip_words(ids, tokenizer, start) for ids, start in zip(asked, starts, strict=True)],
        picture_ids=picture_ids,
    )


def _removable_and_sizes(model: CLIPMapperVQA, questions: TextBatch) -> tuple[Tensor, dict[str, int]]:
    """Return which joint positions may be removed, bool [B, N], and the number of tokens of each modality."""
    valid = _valid(model, questions)
    patches = model.encoder.vision.patches
    # The class token, and the read-out token before it, if there are such tokens.
    kept = valid.shape[1] - questions.valid.shape[1] - patches
    removable = valid.clone()
    removable[:, :kept] = False
    removable[:, kept + patches :] = model.encoder.sub_words(questions)
    return removable, {"image": kept + patches, "text": questions.valid.shape[1]}


def _valid(model: CLIPMapperVQA, questions: TextBatch) -> Tensor:
    """Return the padding mask in joint order, bool [B, N]."""
    count = model.encoder.vision.token_count + (model.trained.mapper.read.learnt is not None)
    return torch.cat([questions.valid.new_ones(len(questions.valid), count), questions.valid], 1)


def _readout(model: CLIPMapperVQA, questions: TextBatch, image_tokens: int) -> Tensor:
    """Return the joint position of the read-out token, [B]."""
    read = model.trained.mapper.read
    return read.place(questions.valid) + (image_tokens if read.stream == "text" else 0)
