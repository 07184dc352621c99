"""VisualBERT: one stream of text tokens and features of image regions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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

READ = ("VisualBertForQuestionAnswering", "VisualBertForVisualReasoning")


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a VisualBERT that answers questions or reasons about an image.

    It sees no pixels, only ``visual_embeds``, the features of regions. There is no grid. If the inputs also have the
    regions' ``boxes`` [B, n_v, 4] (left, top, right, bottom), in any unit, they are those of the trace; the model does
    not get them. An answer is read at the text's last token before [SEP], and a judgement at [CLS].

    Raises:
        TraceError: The model is of another class or bypasses its encoder, an input is missing, or there is not one text
            and one box for each sample and region.
    """
    check_no_answer(model, answer)
    name = type(model).__name__
    if name not in READ:
        raise TraceError(f"{name} has no logits of answers: load {' or '.join(READ)}")
    if model.config.bypass_transformer:
        raise TraceError(f"{name} lets the regions bypass its encoder (bypass_transformer): such a model has no trace")
    regions = needed(inputs, "visual_embeds", "the model reads features of an image's regions, not pixels")
    ids = needed(inputs, "input_ids", "the model needs a text")
    check_pairs(regions, ids)
    boxes = inputs.get("boxes")
    if boxes is not None and boxes.shape != (*regions.shape[:2], 4):
        raise TraceError(f"boxes: expected one for each region, {[*regions.shape[:2], 4]}, got {list(boxes.shape)}")
    text, image = (
        torch.ones(like.shape[:2], dtype=torch.long, device=ids.device) if inputs.get(key) is None else inputs[key]
        for key, like in (("attention_mask", ids), ("visual_attention_mask", regions))
    )
    read = {**{key: value for key, value in inputs.items() if key != "boxes"}, "attention_mask": text}

    def run() -> Tensor:
        logits: Tensor = model(**{**read, "return_dict": True}).logits
        return logits

    (batch, words), count = ids.shape, regions.shape[1]
    whole = whole_batch(batch, words + count, ids.device)
    of_text, of_image = whole[:, :words], whole[:, words:]
    inside = inside_markers(ids, text.bool(), model.config, tokenizer)
    read_at = text.sum(1).long() - 2 if name == READ[0] else torch.zeros_like(ids[:, 0])
    return Plan(
        sizes={"image": count, "text": words},
        valid=torch.cat([image, text], 1).bool(),
        stacks=[
            Stack(
                "joint",
                layers_of(model, model.visual_bert),
                JOINT,
                torch.cat([of_image, of_text], 1),
                {"image": of_image, "text": of_text},
            )
        ],
        run=run,
        removable=torch.cat([image.bool(), inside], 1),
        readout=dict.fromkeys(("image", "text"), count + read_at),
        boxes=boxes,
        words=None if tokenizer is None else words_of(ids, inside, count, tokenizer),
    )
