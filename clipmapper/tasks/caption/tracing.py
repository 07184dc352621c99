"""Traces of captions: all words of a batch's captions from one recorded forward pass (docs/method.md, Captions)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.encoder.pieces import clip_words
from clipmapper.errors import UserError
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.vocabulary import IGNORED
from explain.capture.needs import EVERYTHING, FROM_INPUTS, Needs
from explain.capture.passes import lrp_relevance
from explain.capture.recording import record
from explain.trace import AttentionTrace
from explain.traced import Traced, grid_boxes


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TracedCaptions(Traced):
    """A trace with one item for each of the M tokens of all captions, caption after caption.

    Item m explains the logit of token ``place[m]`` of caption ``sample[m]``. Its read-out token is the text token
    before that token, and its ``logits`` are those of the step that generated the token. Later text tokens of the item
    count as padding, and ``words`` are the words before the token. Text token 0 is the start token, and text token
    i + 1 is the caption's token i.
    """

    sample: Tensor  #: number of the item's caption, [M]
    place: Tensor  #: position of the item's token in its caption, [M]


@dataclass(frozen=True, eq=False)
class CaptionInputs:
    """Captions of up to T tokens, as the model's input."""

    text: TextBatch  #: start token, caption and padding, [B, 1 + T]
    classes: Tensor  #: class of each caption token, [B, T]
    wanted: Tensor  #: whether a token is explained, bool [B, T], false at padding
    against: int | None  #: class whose logit is subtracted from that of each token


def trace_captions(
    model: CLIPMapperCaption,
    pixels: Tensor,
    captions: Sequence[Sequence[int]],
    needs: Needs = EVERYTHING,
    sample_ids: Sequence[int | str] | None = None,
    against: int | None = None,
    picture_ids: Sequence[int | str] | None = None,
    tokens: range | None = None,
) -> TracedCaptions:
    """Trace every token of a batch of captions. A caption without tokens has no items.

    Args:
        model: The model in evaluation mode.
        pixels: Preprocessed images, [B, 3, H, W].
        captions: B captions as ``greedy`` returns them: token ids without start and end token.
        needs: Content of the trace; LRP relevance takes a second pass.
        sample_ids: Names of the captions, which seed random draws; the same for all words of a caption.
        against: A class of the model's head. The explained scalar y is then each token's logit minus the logit of this
            class at the same position.
        picture_ids: Id of each caption's image.
        tokens: Positions of the tokens to explain in each caption; None explains all.

    Raises:
        UserError: No caption has a token, a caption is longer than the encoder's context, or it has a token that the
            model can't generate.
        TraceError: A tensor contains NaN or Inf.
    """
    batch = caption_inputs(model, captions, pixels.device, against)
    if tokens is not None:
        batch = _limited(batch, tokens)
    sample, place = batch.wanted.nonzero(as_tuple=True)
    sizes = _sizes(model, batch)
    vision = model.encoder.vision
    grid = vision.grid_size
    with record(needs=needs) as recorder:
        logits = model(pixels, batch.text)
        relevance = lrp_relevance(
            model,
            lambda _: model(pixels, batch.text),
            lambda every: _explained_logits(every, batch),
            needs,
            batch.wanted,
        )
        y, valid = _explained_logits(logits, batch), _visible_tokens(batch, sizes["image"])
        trace = recorder.trace(
            y,
            sizes,
            valid,
            sample_ids,
            picture_ids,
            attention_relevance=relevance,
            scalar=_scalar_of_inputs(model, pixels, batch),
            wanted=batch.wanted,
            grid=grid,
        )
    tokenizer, first = model.encoder.tokenizer, sizes["image"]
    seen = [captions[s][:p] for s, p in zip(sample.tolist(), place.tolist(), strict=True)]
    return TracedCaptions(
        trace=trace,
        logits=logits.detach()[sample, place],
        removable=_removable(trace, model.encoder.vision.patches),
        readout=dict.fromkeys(sizes, first + place),
        grid=grid,
        boxes=grid_boxes(grid, vision.patch_size, pixels.device),
        words=[clip_words(ids, tokenizer, first + 1) for ids in seen],
        picture_ids=trace.picture_ids,
        sample=sample,
        place=place,
    )


def _limited(batch: CaptionInputs, tokens: range) -> CaptionInputs:
    """Return the captions with only these positions explained."""
    place = torch.arange(batch.wanted.shape[1], device=batch.wanted.device)
    return replace(batch, wanted=batch.wanted & (place >= tokens.start) & (place < tokens.stop))


def _scalar_of_inputs(
    model: CLIPMapperCaption, pixels: Tensor, batch: CaptionInputs
) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Return the function from M captions' inputs, one caption per explained token, to the tokens' scalars, [M]."""
    sample, place = batch.wanted.nonzero(as_tuple=True)
    classes = batch.classes[sample, place]

    def scalar(inputs: Mapping[str, Tensor]) -> Tensor:
        text = TextBatch(batch.text.ids[sample], batch.text.valid[sample], 0)
        with record(inputs, FROM_INPUTS):
            every = model(pixels[sample], text)
        item = torch.arange(len(sample))
        logits = every[item, place, classes]
        return logits if batch.against is None else logits - every[item, place, batch.against]

    return scalar


def caption_inputs(
    model: CLIPMapperCaption, captions: Sequence[Sequence[int]], device: torch.device, against: int | None = None
) -> CaptionInputs:
    """Pad the captions and look up the classes of their tokens; the errors are those of :func:`trace_captions`."""
    lengths = torch.tensor([len(ids) for ids in captions], device=device)
    longest = max(map(len, captions), default=0)
    room = model.encoder.text.context_length - 1
    if longest == 0:
        raise UserError("there is nothing to explain: no caption contains a word")
    if longest > room:
        raise UserError(f"a caption of {longest} sub-words does not fit the encoder's context, which holds {room}")
    ids = np.array([[*caption, *[model.vocabulary.end] * (longest - len(caption))] for caption in captions])
    classes = model.vocabulary.classes(ids)
    if (classes == IGNORED).any():
        raise UserError(f"token {ids[classes == IGNORED][0]} of a caption is not in the model's vocabulary")
    words = torch.from_numpy(ids).to(device)
    start = torch.full_like(words[:, :1], model.vocabulary.start)
    valid = torch.arange(longest + 1, device=device) <= lengths[:, None]
    text = TextBatch(torch.cat([start, words], 1), valid, 0)
    return CaptionInputs(text, torch.from_numpy(classes).to(device), valid[:, 1:], against)


def _sizes(model: CLIPMapperCaption, batch: CaptionInputs) -> dict[str, int]:
    """Return the number of tokens of each modality; the image includes the read-out token, if there is one."""
    image = model.encoder.vision.token_count + (model.trained.mapper.read.learnt is not None)
    return {"image": image, "text": batch.text.ids.shape[1]}


def _removable(trace: AttentionTrace, patches: int) -> Tensor:
    """Return which tokens of each item may be removed, bool [M, N]: patches, and its text except the start token."""
    assert trace.valid is not None
    removable, image = trace.valid.clone(), trace.sizes["image"]
    removable[:, : image - patches] = False
    removable[:, image] = False
    return removable


def _explained_logits(logits: Tensor, batch: CaptionInputs) -> Tensor:
    """Return the logit of each token at the step that generated it, minus that of ``against`` if there is one.

    [B, 1 + T, classes] → [B, T].
    """
    chosen = logits[:, :-1].gather(-1, batch.classes[:, :, None])[:, :, 0]
    return chosen if batch.against is None else chosen - logits[:, :-1, batch.against]


def _visible_tokens(batch: CaptionInputs, image_tokens: int) -> Tensor:
    """Return the joint positions that each token was generated from, bool [B, T, N].

    Later tokens have no influence on the logit. But some explainers count tokens or read columns of R, and a word's
    explanation must not depend on how its caption continues.
    """
    count = batch.text.ids.shape[1]
    earlier = torch.ones(count - 1, count, dtype=torch.bool, device=batch.wanted.device).tril()
    image = earlier.new_ones(len(batch.wanted), count - 1, image_tokens)
    return torch.cat([image, earlier.expand(len(image), -1, -1)], 2)
