"""LLaVA-Next and LLaVA-OneVision: an image and its tiles at higher resolution, with a learnt token after each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face.families.decoder import decoder_plan, sequences
from explain.adapters.hugging_face.families.tower import Frames, tower_images
from explain.adapters.hugging_face.plan import Plan, needed
from explain.targets import Answer
from explain.trace import TraceError


def plan(model: Any, inputs: Mapping[str, Any], answer: Answer | None, tokenizer: Any) -> Plan:
    """Return the plan of a LLaVA-Next or LLaVA-OneVision with one image per sample.

    The first frame is the whole image, the others are its tiles; boxes are in pixels of their frame. The first column
    is the learnt token that ends the rows.

    Raises:
        TraceError: There is a video, not one image per sample, or the image tokens do not match the images.
    """
    if inputs.get("pixel_values_videos") is not None:
        raise TraceError("inputs have a video (pixel_values_videos): only images can be traced")
    config = model.config
    text = sequences(model, inputs, answer, config.image_token_id)
    sizes = needed(inputs, "image_sizes", "the processor returns it with each image")
    if len(sizes) != len(text.counts):
        raise TraceError(f"{len(sizes)} images for {len(text.counts)} texts: one image per text can be traced")
    frames = Frames.of(model, model.model.vision_tower, inputs["pixel_values"], config.vision_feature_layer)
    if (config.vision_feature_select_strategy == "default") != (frames.prefix == 1):
        raise TraceError(
            f"vision_feature_select_strategy={config.vision_feature_select_strategy!r} of a tower with "
            f"{frames.prefix} class tokens"
        )
    weights = [_packed(model, frames, size) for size in sizes]
    if [len(own) for own in weights] != text.counts:
        raise TraceError(
            f"the texts have {text.counts} image tokens, but the images need {[len(own) for own in weights]}"
        )
    per_sample = [(own.shape[1] - 1) // frames.patches for own in weights]
    images = tower_images(frames, per_sample, weights, text, learnt=1)
    return decoder_plan(model, text, images, answer, tokenizer, model.model.language_model)


def _packed(model: Any, frames: Frames, size: Tensor) -> Tensor:
    """Return the map from the learnt token and the patches of one image to its image tokens, [slots, 1 + patches].

    It is what the model itself makes of unit vectors, since packing is linear in the features.
    """
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    config = model.config
    count = image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)
    units = torch.eye(1 + count * frames.patches)
    features = [units[1:].view(count, frames.patches, -1)]
    how: dict[str, Any] = {"image_newline": units[0]}
    if config.model_type == "llava_onevision":
        how["vision_aspect_ratio"] = config.vision_aspect_ratio
    else:
        how["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    packed, _ = model.model.pack_image_features(features, size[None], **how)
    weights: Tensor = packed[0]
    return weights / weights.sum(1, keepdim=True)  # sums of an interpolation differ from 1 by rounding
