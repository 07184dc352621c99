"""What the tests of the adapter for ``transformers`` share: the untouched logits, and a model's blocks in order."""

from contextlib import contextmanager

import torch
from hugging_face_models import IMAGE

# Joint positions in the order of the model's tensors: class token, image and text, or text and regions.
JOINT_ORDERS = {"flava": [10, *range(10), *range(11, 16)], "visual_bert": [*range(5, 10), *range(5)]}


def plain_logits(name, model, inputs):
    """Return the logits of the untouched model that are explained."""
    with torch.no_grad():
        return logits_of(name, model, inputs)


def logits_of(name, model, inputs):
    """Return the logits that are explained, with their graph."""
    if name == "blip_vqa":  # the model returns no logits, but its decoder does
        with shown(model.text_decoder) as outputs:
            model(**inputs)
        last = inputs["decoder_attention_mask"].sum(1) - 1
        return outputs[0].logits[torch.arange(len(last)), last]
    output = model(**inputs)
    if name in ("blip_matching", "flava", "lxmert"):
        return output[{"blip_matching": "itm_score", "flava": "itm_logits"}.get(name, "question_answering_score")]
    if name.startswith(("clip", "chinese_clip", "siglip")):
        return (output.image_embeds * output.text_embeds).sum(-1, keepdim=True)
    if output.logits.ndim == 2:
        return output.logits
    last = inputs["attention_mask"].sum(1) - 1
    return output.logits[torch.arange(len(last)), last]


@contextmanager
def shown(module):
    """Yield a list that gets each output of a module."""
    outputs = []
    with module.register_forward_hook(lambda _, __, output: outputs.append(output)):
        yield outputs


def blocks_of(name, model):
    """Return the block of each step, and the module that outputs Y, in the order of the steps."""
    if name == "chinese_clip":
        return [
            *((layer, layer.self_attn) for layer in model.vision_model.encoder.layers),
            *((layer, layer.attention.output.dropout) for layer in model.text_model.encoder.layer),
        ]
    if name.startswith("blip_"):
        parts = [getattr(model, part) for part in ("text_encoder", "text_decoder") if hasattr(model, part)]
        return [
            *((layer, layer.self_attn) for layer in model.vision_model.encoder.layers),
            *(
                (part, part.output.dropout)
                for text in parts
                for layer in getattr(text, "bert", text).encoder.layer
                for part in (layer.attention, layer.crossattention)
            ),
        ]
    if name == "flava":
        parts = [model.flava.image_model, model.flava.text_model, model.flava.multimodal_model]
        return [(layer, layer.attention.output.dropout) for part in parts for layer in part.encoder.layer]
    if name == "visual_bert":
        return [(layer, layer.attention.output.dropout) for layer in model.visual_bert.encoder.layer]
    if name in ("clip", "siglip", "siglip2"):
        return [(layer, layer.self_attn) for t in (model.vision_model, model.text_model) for layer in t.encoder.layers]
    if name in ("vit", "dinov2"):
        layers = model.vit.layers if name == "vit" else model.dinov2.encoder.layer
        return [(layer, layer.attention if name == "vit" else layer.layer_scale1) for layer in layers]
    if name == "bert":
        return [(layer, layer.attention.output.dropout) for layer in model.bert.encoder.layer]
    if name in ("blip2", "instructblip"):
        return [
            *((layer, layer.self_attn) for layer in model.vision_model.encoder.layers),
            *(
                (part, part.output.dropout)
                for layer in model.qformer.encoder.layer
                for part in (layer.attention, getattr(layer, "crossattention", None))
                if part is not None
            ),
            *((layer, layer.self_attn) for layer in model.language_model.model.decoder.layers),
        ]
    if name == "gemma3":
        return [
            *((layer, layer.self_attn) for layer in model.model.vision_tower.encoder.layers),
            *((layer, layer.post_attention_layernorm) for layer in model.model.language_model.layers),
        ]
    language = [(layer, layer.self_attn) for layer in model.model.language_model.layers]
    if name == "llava":
        return [
            *((layer, layer.self_attn) for layer in model.model.vision_tower.encoder.layers[:2]),
            *language,
        ]
    return [*((block, block.attn) for block in model.model.visual.blocks), *language]


def shown_attention(block):
    """Return the module that outputs A in a block that computes its attention itself."""
    return next(
        m.dropout for m in block.modules() if hasattr(m, "dropout") and (hasattr(m, "query") or hasattr(m, "qkv"))
    )


def joint_order(inputs):
    """Return for each sample the sequence positions in joint order: image tokens, then the others."""
    orders = []
    for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True):
        real = [k for k, one in enumerate(mask) if one]
        orders.append([k for k in real if ids[k] == IMAGE] + [k for k in real if ids[k] != IMAGE])
    return orders


def single(name, inputs, sample):
    """Return one sample without padding."""
    if "qwen" in name:
        starts = {0: (0, 16), 1: (16, 40)}[sample]
        grid = inputs["image_grid_thw"][sample : sample + 1]
        image = {"pixel_values": inputs["pixel_values"][slice(*starts)], "image_grid_thw": grid}
    elif name == "internvl":
        image = {"pixel_values": inputs["pixel_values"][[slice(0, 1), slice(1, 3)][sample]]}
    else:
        image = {k: v[sample : sample + 1] for k, v in inputs.items() if k in ("pixel_values", "image_sizes")}
    mask = inputs.get("attention_mask")
    keep = None if mask is None else mask[sample].bool()
    text = {
        k: v[sample : sample + 1] if keep is None else v[sample : sample + 1, keep]
        for k, v in inputs.items()
        if k in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
    }
    if name == "blip_vqa":
        text |= {key: inputs[key][sample : sample + 1] for key in ("decoder_input_ids", "decoder_attention_mask")}
    if name == "visual_bert":
        keep = inputs["visual_attention_mask"][sample].bool()
        image = {key: inputs[key][sample : sample + 1, keep] for key in ("visual_embeds", "visual_attention_mask")}
    if name == "siglip2":
        keep = inputs["pixel_attention_mask"][sample].bool()
        image = {key: inputs[key][sample : sample + 1, keep] for key in ("pixel_values", "pixel_attention_mask")}
        image["spatial_shapes"] = inputs["spatial_shapes"][sample : sample + 1]
    if name == "mllama":
        for key in ("aspect_ratio_ids", "aspect_ratio_mask"):
            image[key] = inputs[key][sample : sample + 1]
        image["cross_attention_mask"] = inputs["cross_attention_mask"][sample : sample + 1, keep]
    if name == "instructblip":
        keep = inputs["qformer_attention_mask"][sample].bool()
        for key in ("qformer_input_ids", "qformer_attention_mask"):
            image[key] = inputs[key][sample : sample + 1, keep]
    return {**text, **image}
