"""BLIP-2 and InstructBLIP: queries read an image by cross-attention, and become a language model's image tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face.families.decoder import decoder_plan, sequences
from explain.adapters.hugging_face.families.tower import Frames, images_per_sample, tower_images
from explain.adapters.hugging_face.plan import Cross, Plan, Stack, crossing_blocks, needed, whole_batch
from explain.targets import Answer
from explain.trace import TraceError


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a BLIP-2 or InstructBLIP with a decoder, such as OPT or Llama, and one image per text.

    The queries are a modality ``query``. InstructBLIP's queries attend to a copy of the text beside them, which is part
    of that modality. The stack ``query`` consists of the Q-Former's attentions, self- and cross-attention, in order.

    Raises:
        TraceError: The language model has an encoder, or there is not one image for each text.
    """
    if not model.config.use_decoder_only_language_model:
        raise TraceError(f"{type(model).__name__}: its language model has an encoder; only decoders can be traced")
    text = sequences(model, inputs, answer, model.config.image_token_id)
    pixels, count = inputs["pixel_values"], model.config.num_query_tokens
    if set(images_per_sample(text.counts, count, len(pixels))) != {1}:
        raise TraceError(f"{len(pixels)} images for {len(text.counts)} texts: one image per text can be traced")
    frames = Frames.of(model, model.vision_model, pixels)
    nothing = torch.zeros(count, frames.patches)  # the image tokens come from the queries instead
    images = tower_images(frames, [1] * len(pixels), [nothing] * len(pixels), text)
    queries = torch.ones(len(pixels), count, dtype=torch.bool, device=pixels.device)
    if model.config.model_type == "instructblip":
        copy = needed(inputs, "qformer_input_ids", "the processor returns it with each text")
        mask = inputs.get("qformer_attention_mask")
        queries = torch.cat([queries, torch.ones_like(copy).bool() if mask is None else mask.bool()], 1)
    stack = _queries(model, queries, count, images.stacks[0].places)
    weights = torch.eye(queries.shape[1], device=pixels.device)[:count].expand(len(pixels), -1, -1)
    images = replace(images, stacks=[*images.stacks, stack], queries=queries, weights=weights)
    return decoder_plan(model, text, images, answer, tokenizer, model.language_model)


def _queries(model: Any, valid: Tensor, count: int, keys: Tensor) -> Stack:
    """Return the stack of the Q-Former's attentions."""
    blocks, crossed = crossing_blocks(model, model.qformer)
    places = whole_batch(len(valid), valid.shape[1], valid.device).masked_fill(~valid, -1)
    reading = torch.full_like(places, -1)  # only the queries read the image, not the text beside them
    reading[:, :count] = whole_batch(len(valid), count, valid.device)
    cross = Cross(crossed, "image", reading, keys)
    return Stack("query", blocks, "query", places, {"query": places}, cross=cross)
