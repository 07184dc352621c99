"""FLAVA: an image encoder, a text encoder, and a multimodal encoder of the tokens of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face.families.tower import Frames
from explain.adapters.hugging_face.plan import (
    Plan,
    Stack,
    check_no_answer,
    check_pairs,
    layers_of,
    needed,
    whole_batch,
)
from explain.adapters.hugging_face.text import inside_markers, words_of
from explain.targets import Answer
from explain.trace import JOINT, TraceError
from explain.traced import grid_boxes

INPUTS = ("input_ids", "pixel_values", "attention_mask", "token_type_ids", "position_ids")
OF_PRETRAINING = ("input_ids_masked", "bool_masked_pos", "codebook_pixel_values", "image_attention_mask")


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a ``FlavaForPreTraining``, whose logits are those of "no match" and "match".

    They are read at the multimodal encoder's first token: its class token, which is a modality ``multimodal`` of one
    token, or without one the image's class token.

    Raises:
        TraceError: The model has no logits, an input is missing, masked inputs of pretraining are given, or the numbers
            of images and texts differ.
    """
    check_no_answer(model, answer)
    if not hasattr(model, "itm_head"):
        raise TraceError(f"{type(model).__name__} has no logits to explain: load FlavaForPreTraining")
    masked = next((name for name in OF_PRETRAINING if inputs.get(name) is not None), None)
    if masked is not None:
        raise TraceError(f"inputs have {masked}, which is of pretraining: leave it out")
    pixels = needed(inputs, "pixel_values", "the model needs an image")
    ids = needed(inputs, "input_ids", "the model needs a text")
    check_pairs(pixels, ids)
    flava, device, (batch, length) = model.flava, ids.device, ids.shape
    read = {name: inputs[name] for name in INPUTS if inputs.get(name) is not None}

    def run() -> Tensor:
        logits: Tensor = model.itm_head(flava(**read, return_dict=True).multimodal_embeddings)
        return logits

    frames = Frames.of(model, flava.image_model, pixels)
    count, own = frames.prefix + frames.patches, int(flava.multimodal_model.use_cls_token)
    image, text = whole_batch(batch, count, device), whole_batch(batch, length, device)
    whole = whole_batch(batch, own + count + length, device)  # class token, image, text
    classes, joint = (
        whole[:, :own],
        torch.cat([whole[:, own : own + count], whole[:, :own], whole[:, own + count :]], 1),
    )
    mask = inputs.get("attention_mask")
    valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    inside = inside_markers(ids, valid, model.config.text_config, tokenizer)
    patches = (torch.arange(count, device=device) >= frames.prefix).expand(batch, -1)
    others = torch.ones_like(classes, dtype=torch.bool)
    first = torch.full_like(ids[:, 0], count if own else 0)
    return Plan(
        sizes={"image": count, **({"multimodal": 1} if own else {}), "text": length},
        valid=torch.cat([torch.ones_like(patches), others, valid], 1),
        stacks=[
            Stack("image", frames.blocks, "image", image, {"image": image}),
            Stack("text", layers_of(model, flava.text_model), "text", text, {"text": text}),
            Stack(
                "multimodal",
                layers_of(model, flava.multimodal_model),
                JOINT,
                joint,
                {"multimodal": classes} if own else {},
            ),
        ],
        run=run,
        removable=torch.cat([patches, ~others, inside], 1),
        readout=dict.fromkeys(("image", "text"), first),
        grid=frames.grid,
        boxes=grid_boxes(frames.grid, frames.patch, device),
        words=None if tokenizer is None else words_of(ids, inside, count + own, tokenizer),
    )
