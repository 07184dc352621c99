"""Dual encoders, joined only by the similarity of image and text: CLIP, Chinese-CLIP, SigLIP and SigLIP 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.adapters.hugging_face.plan import (
    Plan,
    Stack,
    check_no_answer,
    check_pairs,
    layers_of,
    needed,
    patch_size,
    prefix_tokens,
    whole_batch,
)
from explain.adapters.hugging_face.text import is_special, special_ids, words_of
from explain.adapters.watching import replaced
from explain.adapters.words import between_markers
from explain.capture.recording import Recorder
from explain.targets import Answer
from explain.traced import grid_boxes

TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes", "interpolate_pos_encoding")


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of pairs of an image and a text; the only logit is their cosine.

    SigLIP reads an image through a probe, which attends to the image's tokens: a modality ``probe`` of one token.

    Raises:
        TraceError: An input is missing, or the numbers of images and texts differ.
    """
    pixels = needed(inputs, "pixel_values", "the model needs an image")
    ids = needed(inputs, "input_ids", "the model needs a text")
    check_no_answer(model, answer)
    check_pairs(pixels, ids)
    of_text = {name: inputs[name] for name in TEXT_INPUTS if name in inputs}
    of_image = {name: inputs[name] for name in IMAGE_INPUTS if name in inputs}

    def cosine() -> Tensor:
        image = nn.functional.normalize(model.get_image_features(**of_image).pooler_output, dim=-1)
        text = nn.functional.normalize(model.get_text_features(**of_text).pooler_output, dim=-1)
        return (image[:, None] @ text[:, :, None])[:, :, 0]  # a matrix product, for which LRP has a rule

    probed = hasattr(model.vision_model, "head")
    prefix, batch = prefix_tokens(model.vision_model), len(ids)
    grid, boxes, real = _patches(model, inputs)
    count = prefix + real.shape[1]
    of_patches, of_words = whole_batch(batch, count, pixels.device), whole_batch(len(ids), ids.shape[1], ids.device)
    ends, valid_text = _read_text(model, ids, inputs.get("attention_mask"))
    inside = valid_text & ~is_special(ids, special_ids(model.config.text_config, tokenizer=tokenizer))
    inside.scatter_(1, ends[:, None], False)
    if model.config.model_type == "chinese_clip":
        inside &= between_markers(valid_text)
    first = count + int(probed)
    others = real.new_ones(batch, prefix), real.new_ones(batch, int(probed))  # class token, probe
    removable = torch.cat([~others[0], real, ~others[1], inside], 1)
    return Plan(
        sizes={"image": count, **({"probe": 1} if probed else {}), "text": ids.shape[1]},
        valid=torch.cat([others[0], real, others[1], valid_text], 1),
        stacks=[
            Stack("image", layers_of(model, model.vision_model), "image", of_patches, {"image": of_patches}),
            Stack("text", layers_of(model, model.text_model), "text", of_words, {"text": of_words}),
        ],
        run=cosine,
        removable=removable,
        readout={"image": torch.full_like(ends, count if probed else 0), "text": first + ends},
        grid=grid,
        boxes=boxes,
        words=None if tokenizer is None else words_of(ids, inside, first, tokenizer),
        hook=partial(_watch_probe, model.vision_model.head) if probed else None,
    )


def _patches(model: Any, inputs: Mapping[str, Any]) -> tuple[tuple[int, int] | None, Tensor, Tensor]:
    """Return the grid, the boxes [P, 4] or [B, P, 4], and the real patches, bool [B, P].

    SigLIP 2 has images of any size, whose patches are given row by row, followed by padding.
    """
    pixels, size = inputs["pixel_values"], patch_size(model.config.vision_config)
    if model.config.model_type != "siglip2":
        grid = (pixels.shape[-2] // size[0], pixels.shape[-1] // size[1])
        boxes = grid_boxes(grid, size, pixels.device)
        return grid, boxes, torch.ones(len(pixels), len(boxes), dtype=torch.bool, device=pixels.device)
    shapes: list[list[int]] = needed(inputs, "spatial_shapes", "the processor returns it with each image").tolist()
    each = [grid_boxes((rows, cols), size, pixels.device) for rows, cols in shapes]
    boxes = torch.zeros(*pixels.shape[:2], 4, dtype=torch.long, device=pixels.device)
    real = torch.zeros(pixels.shape[:2], dtype=torch.bool, device=pixels.device)
    for sample, own in enumerate(each):
        boxes[sample, : len(own)], real[sample, : len(own)] = own, True
    one = len({tuple(shape) for shape in shapes}) == 1 and bool(real.all())
    return (shapes[0][0], shapes[0][1]) if one else None, boxes, real


def _read_text(model: Any, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the position that each text is read from, [B], and its valid tokens, [B, n]."""
    place = torch.arange(ids.shape[1], device=ids.device)
    if model.config.model_type == "chinese_clip":
        return torch.zeros_like(ids[:, 0]), torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if model.config.model_type != "clip":  # SigLIP reads the last token, be it padding, which is therefore valid
        valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        return torch.full_like(ids[:, 0], len(place) - 1), valid | (place == len(place) - 1)
    end = model.text_model.eos_token_id
    ends = ids.argmax(1) if end == 2 else (ids == end).int().argmax(1)
    return ends, place <= ends[:, None]


def _watch_probe(head: Any, hooks: ExitStack, recorder: Recorder, chosen: Mapping[str, Sequence[int]]) -> None:
    """Record the cross-attention of SigLIP's probe, if layers of the image are recorded.

    The probe is not added to what it reads: X is 0.
    """
    if chosen["image"]:
        hooks.enter_context(replaced(head.attention, "forward", partial(_attend, head.attention, recorder)))


def _attend(
    attn: Any,
    recorder: Recorder,
    query: Tensor,
    key: Tensor,
    _value: Tensor,
    attn_mask: Tensor | None = None,
) -> tuple[Tensor, None]:
    """Compute ``nn.MultiheadAttention`` explicitly, query [B, 1, D] and key [B, n, D], and record it."""
    query = recorder.inputs("probe", query, start=False)
    weights = attn.in_proj_weight.chunk(3)
    biases = (None, None, None) if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)
    q, k, v = (
        nn.functional.linear(x, weight, bias).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip((query, key, key), weights, biases, strict=True)
    )
    scores = q @ k.mT * q.shape[-1] ** -0.5
    attention = (scores if attn_mask is None else scores + attn_mask.view_as(scores)).softmax(-1)
    output = attn.out_proj((attention @ v).transpose(1, 2).flatten(2))
    nothing = torch.zeros(
        output.shape, dtype=output.dtype, device=output.device, requires_grad=recorder.needs.gradients
    )
    recorder.step(query="probe", key="image", attention=attention, residual=nothing, output=output)
    return output, None
