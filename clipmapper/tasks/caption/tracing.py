"""Traces of captions: every word of every caption of a batch, from one recorded forward pass (METHOD: Captions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """A trace with an item for each of the M tokens of all captions, caption after caption, and what its items are.

    Item m explains the logit of token ``place[m]`` of caption ``sample[m]``, both [M]. Its readout is the text token
    before that one, and its ``logits`` are those of the step at which the token was generated. Its later text tokens
    count as padding, and ``words`` are those before it: text token 0 is the start token and token i + 1 the caption's
    token i.
    """

    sample: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class _Batch:
    """Captions after their start token, padded to ``text`` [B, 1 + T], and the class [B, T] of each of their tokens.

    ``against`` is the class whose logit is taken off that of each token.
    """

    text: TextBatch
    classes: Tensor
    wanted: Tensor  # bool [B, T], false at padding
    against: int | None


def trace_captions(
    model: CLIPMapperCaption,
    pixels: Tensor,
    captions: Sequence[Sequence[int]],
    needs: Needs = EVERYTHING,
    sample_ids: Sequence[int | str] | None = None,
    against: int | None = None,
    picture_ids: Sequence[int | str] | None = None,
) -> TracedCaptions:
    """The trace of every token of the captions of a batch. A caption without tokens has no items.

    Args:
        model: In evaluation mode.
        pixels: [B, 3, H, W].
        captions: B captions as ``greedy`` gives them: token ids without start and end token.
        needs: What the trace holds; LRP relevance costs a second pass.
        sample_ids: Names of the captions, for what is drawn at random: the same for all words of a caption.
        against: A class of the model's head: y is each token's logit less that of this one at the same place.
        picture_ids: Whose picture each caption is of.

    Raises:
        UserError: no caption holds a token, one is longer than the encoder's context, or one holds a token that the
            model cannot generate.
        TraceError: a tensor holds NaN or Inf.
    """
    batch = _batch(model, captions, pixels.device, against)
    sample, place = batch.wanted.nonzero(as_tuple=True)
    classes = batch.classes[sample, place]
    sizes = _sizes(model, batch)
    with record(needs=needs) as recorder:
        logits = model(pixels, batch.text)
        relevance = lrp_relevance(
            lambda _: model(pixels, batch.text), lambda every: _chosen(every, batch), needs, batch.wanted
        )

        def scalar(inputs: Mapping[str, Tensor]) -> Tensor:
            text = TextBatch(batch.text.ids[sample], batch.text.valid[sample], 0)
            with record(inputs, FROM_INPUTS):
                every = model(pixels[sample], text)
            item = torch.arange(len(sample))
            logits = every[item, place, classes]
            return logits if against is None else logits - every[item, place, against]

        y, valid = _chosen(logits, batch), _seen(batch, sizes["image"])
        trace = recorder.trace(
            y, sizes, valid, sample_ids, attention_relevance=relevance, scalar=scalar, wanted=batch.wanted
        )
    visual, tokenizer, first = model.encoder.vision.visual, model.encoder.tokenizer, sizes["image"]
    seen = [captions[s][:p] for s, p in zip(sample.tolist(), place.tolist(), strict=True)]
    return TracedCaptions(
        trace=trace,
        logits=logits.detach()[sample, place],
        removable=_removable(trace, model.encoder.vision.token_count - 1),
        readout=dict.fromkeys(sizes, first + place),
        grid=tuple(visual.grid_size),
        boxes=grid_boxes(visual.grid_size, visual.patch_size, pixels.device),
        words=[clip_words(ids, tokenizer, first + 1) for ids in seen],
        picture_ids=None if picture_ids is None else [picture_ids[k] for k in sample.tolist()],
        sample=sample,
        place=place,
    )


def _batch(
    model: CLIPMapperCaption, captions: Sequence[Sequence[int]], device: torch.device, against: int | None
) -> _Batch:
    lengths = torch.tensor([len(ids) for ids in captions], device=device)
    longest = max(map(len, captions), default=0)
    room = model.encoder.text.context_length - 1
    if longest == 0:
        raise UserError("there is nothing to explain: no caption holds a word")
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
    return _Batch(text, torch.from_numpy(classes).to(device), valid[:, 1:], against)


def _sizes(model: CLIPMapperCaption, batch: _Batch) -> dict[str, int]:
    """Tokens of each modality; a read-out token stands before the image's class token."""
    image = model.encoder.vision.token_count + (model.caption.mapper.read.learnt is not None)
    return {"image": image, "text": batch.text.ids.shape[1]}


def _removable(trace: AttentionTrace, patches: int) -> Tensor:
    """bool [M, N]: the patches, and the text tokens of each item but the start token."""
    assert trace.valid is not None
    removable, image = trace.valid.clone(), trace.sizes["image"]
    removable[:, : image - patches] = False
    removable[:, image] = False
    return removable


def _chosen(logits: Tensor, batch: _Batch) -> Tensor:
    """The logit of each token where it was generated, less that of ``against``: [B, 1 + T, classes] → [B, T]."""
    chosen = logits[:, :-1].gather(-1, batch.classes[:, :, None])[:, :, 0]
    return chosen if batch.against is None else chosen - logits[:, :-1, batch.against]


def _seen(batch: _Batch, image_tokens: int) -> Tensor:
    """bool [B, T, N], the tokens a word was generated from.

    Later words bear on nothing here, but some explainers count tokens or read columns of R: a word's explanation must
    not hang on how the caption goes on.
    """
    count = batch.text.ids.shape[1]
    earlier = torch.ones(count - 1, count, dtype=torch.bool, device=batch.wanted.device).tril()
    image = earlier.new_ones(len(batch.wanted), count - 1, image_tokens)
    return torch.cat([image, earlier.expand(len(image), -1, -1)], 2)
