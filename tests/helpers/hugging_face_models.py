"""Tiny random models of ``transformers`` for each family, with padded batches. Nothing is downloaded."""

from functools import partial

import torch
from adapter_checks import normal, randomise

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 4,
}
LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 128,
}
IMAGE = 35  # the image token


def ready(model, dtype=torch.float32, seed=0):
    return randomise(model, seed).to(dtype)


def pixels(count=2, size=12, dtype=torch.float32, seed=0):
    return normal(count, 3, size, size, seed=seed, dtype=torch.float64).to(dtype)


def texts(*rows, left=False):
    """Return padded ids and their mask."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[b, place] = torch.tensor(row)
        mask[b, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def clip(dtype=torch.float32):
    import transformers

    text = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 8, "eos_token_id": 29, "bos_token_id": 28, "pad_token_id": 0}
    config = transformers.CLIPConfig(text_config=text, vision_config=dict(VISION), projection_dim=10)
    return ready(transformers.CLIPModel(config), dtype), {
        "pixel_values": pixels(dtype=dtype),
        **texts([28, 5, 29], [28, 5, 9, 4, 29]),
    }


def siglip(dtype=torch.float32):
    import transformers

    text = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 5, "projection_size": 16}
    text |= {"pad_token_id": 1, "bos_token_id": 28, "eos_token_id": 29}
    config = transformers.SiglipConfig(text_config=text, vision_config=dict(VISION))
    inputs = {"pixel_values": pixels(dtype=dtype), "input_ids": torch.tensor([[5, 7, 9, 1, 1], [4, 8, 6, 5, 1]])}
    return ready(transformers.SiglipModel(config), dtype), inputs


def siglip2(dtype=torch.float32):
    """Return images of 3 × 3 and 2 × 3 patches, given as patches with padding."""
    import transformers

    text = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 5, "projection_size": 16}
    text |= {"pad_token_id": 1, "bos_token_id": 28, "eos_token_id": 29}
    vision = {key: value for key, value in VISION.items() if key != "image_size"}
    config = transformers.Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 9})
    patches = normal(2, 9, 48, dtype=torch.float64).to(dtype)
    patches[1, 6:] = 0
    return ready(transformers.Siglip2Model(config), dtype), {
        "pixel_values": patches,
        "pixel_attention_mask": torch.tensor([[1] * 9, [1] * 6 + [0] * 3]),
        "spatial_shapes": torch.tensor([[3, 3], [2, 3]]),
        "input_ids": torch.tensor([[5, 7, 9, 1, 1], [4, 8, 6, 5, 1]]),
    }


def vit(dtype=torch.float32):
    import transformers

    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION, num_labels=4))
    return ready(model, dtype), {"pixel_values": pixels(dtype=dtype)}


def dinov2(dtype=torch.float32):
    import transformers

    config = transformers.Dinov2Config(**{**VISION, "mlp_ratio": 2}, num_labels=4)
    return ready(transformers.Dinov2ForImageClassification(config), dtype), {"pixel_values": pixels(dtype=dtype)}


def dinov2_with_registers(dtype=torch.float32):
    import transformers

    config = transformers.Dinov2WithRegistersConfig(**{**VISION, "mlp_ratio": 2}, num_labels=4, num_register_tokens=2)
    model = transformers.Dinov2WithRegistersForImageClassification(config)
    return ready(model, dtype), {"pixel_values": pixels(dtype=dtype)}


def bert(dtype=torch.float32):
    import transformers

    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        num_labels=4,
    )
    return ready(transformers.BertForSequenceClassification(config), dtype), texts([2, 7, 3], [2, 9, 8, 7, 3])


def llava(dtype=torch.float32, tower="clip", left=False, **options):
    import transformers

    kind = {"clip": transformers.CLIPVisionConfig, "siglip": transformers.SiglipVisionConfig}[tower]
    strategy = "default" if tower == "clip" else "full"
    config = transformers.LlavaConfig(
        vision_config=kind(**VISION),
        text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_id=IMAGE,
        **{"vision_feature_select_strategy": strategy, **options},
    )
    inputs = texts([1, 5, *[IMAGE] * 9, 6, 7], [1, *[IMAGE] * 9, 8, 9, 6, 4], left=left)
    return ready(transformers.LlavaForConditionalGeneration(config), dtype), {
        "pixel_values": pixels(dtype=dtype),
        **inputs,
    }


def qwen(version, dtype=torch.float32):
    """Return two images of 4 × 4 and 4 × 6 patches, which are merged 2 × 2."""
    import transformers

    vision = {"depth": 3, "num_heads": 2, "patch_size": 2, "temporal_patch_size": 2, "spatial_merge_size": 2}
    text = {**LANGUAGE, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e4}}
    ids = {"image_token_id": IMAGE, "video_token_id": 36, "vision_start_token_id": 37, "vision_end_token_id": 38}
    if version == 2:
        vision |= {"embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2}
        config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen2VLForConditionalGeneration(config)
    elif version == 3.5:
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16, "num_position_embeddings": 16}
        text |= {"head_dim": 4, "layer_types": ["full_attention", "linear_attention", "full_attention"]}
        text |= {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 4}
        text |= {"linear_value_head_dim": 4}
        text["rope_parameters"] |= {"partial_rotary_factor": 1.0}
        config = transformers.Qwen3_5Config(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen3_5ForConditionalGeneration(config)
    elif version == 3:
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16}
        vision |= {"deepstack_visual_indexes": [1], "num_position_embeddings": 16}
        text |= {"head_dim": 4}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen3VLForConditionalGeneration(config)
    else:
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16}
        vision |= {"window_size": 8, "fullatt_block_indexes": [1]}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    grids = torch.tensor([[1, 4, 4], [1, 4, 6]])
    inputs = texts([1, 37, *[IMAGE] * 4, 38, 6, 7], [1, 37, *[IMAGE] * 6, 38, 8, 9, 6])
    return ready(model, dtype), {
        **inputs,
        "pixel_values": normal(40, 3 * 2 * 2 * 2, dtype=torch.float64).to(dtype),
        "image_grid_thw": grids,
        "mm_token_type_ids": (inputs["input_ids"] == IMAGE).int(),
    }


def paligemma(dtype=torch.float32):
    import transformers

    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(**VISION, projection_dim=16),
        text_config=transformers.GemmaConfig(**LANGUAGE, head_dim=4),
        image_token_id=IMAGE,
        projection_dim=16,
    )
    inputs = texts([*[IMAGE] * 9, 1, 6, 7], [*[IMAGE] * 9, 1, 8, 9, 6, 4])
    return ready(transformers.PaliGemmaForConditionalGeneration(config), dtype), {
        "pixel_values": pixels(dtype=dtype),
        **inputs,
        "token_type_ids": torch.zeros_like(inputs["input_ids"]),
    }


def gemma3(dtype=torch.float32):
    """Return images of 4 × 4 patches, of which squares of 2 × 2 are averaged."""
    import transformers

    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**{**VISION, "image_size": 16}),
        text_config=transformers.Gemma3TextConfig(**LANGUAGE, head_dim=4, sliding_window=8),
        image_token_id=IMAGE,
        mm_tokens_per_image=4,
    )
    inputs = texts([1, 37, *[IMAGE] * 4, 38, 6, 7], [1, 5, 37, *[IMAGE] * 4, 38, 8, 9, 6])
    return ready(transformers.Gemma3ForConditionalGeneration(config), dtype), {
        "pixel_values": pixels(size=16, dtype=dtype),
        **inputs,
        "token_type_ids": (inputs["input_ids"] == IMAGE).long(),
    }


def internvl(dtype=torch.float32):
    """Return images of 4 × 4 patches, of which squares of 2 × 2 are joined; the second sample has two."""
    import transformers

    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**{**VISION, "image_size": [16, 16], "patch_size": [4, 4]}),
        text_config=transformers.Qwen2Config(**LANGUAGE),
        image_token_id=IMAGE,
    )
    inputs = texts([1, *[IMAGE] * 4, 6, 7], [1, *[IMAGE] * 4, 5, *[IMAGE] * 4, 9, 6])
    return ready(transformers.InternVLForConditionalGeneration(config), dtype), {
        "pixel_values": pixels(3, size=16, dtype=dtype),
        **inputs,
    }


def llava_tiles(kind, dtype=torch.float32):
    """Return an image of two tiles side by side, and one of two tiles one above the other, whose sides are empty."""
    import transformers

    options = {"image_token_id": IMAGE, "image_grid_pinpoints": [[12, 24], [24, 12]]}
    sizes = torch.tensor([[12, 24], [24, 4]])
    # 9 patches of the whole image, and the tiles' rows of 6 patches or 1 patch, each with a learnt token at its end.
    slots = [9 + 3 * 7, 9 + 6 * 2]
    if kind == "next":
        config = transformers.LlavaNextConfig(
            vision_config=transformers.CLIPVisionConfig(**VISION),
            text_config=transformers.LlamaConfig(**LANGUAGE),
            **options,
        )
        model = transformers.LlavaNextForConditionalGeneration(config)
    else:
        config = transformers.LlavaOnevisionConfig(
            vision_config=transformers.SiglipVisionConfig(**VISION),
            text_config=transformers.Qwen2Config(**LANGUAGE),
            vision_aspect_ratio="anyres_max_1",
            **options,
        )
        model = transformers.LlavaOnevisionForConditionalGeneration(config)
        slots[0] = 9 + 2 * 5  # 3 × 6 patches are resized to 2 × 4
    frames = pixels(6, dtype=dtype).view(2, 3, 3, 12, 12)
    inputs = texts([1, *[IMAGE] * slots[0], 6, 7], [1, 5, *[IMAGE] * slots[1], 8, 9, 6])
    return ready(model, dtype), {"pixel_values": frames, "image_sizes": sizes, **inputs}


def idefics(kind, dtype=torch.float32):
    """Return one and two tiles of 4 × 4 patches, of which squares of 2 × 2 are joined."""
    import transformers

    vision = {**VISION, "image_size": 16}
    text = transformers.LlamaConfig(**LANGUAGE)
    if kind == "idefics3":
        vision_config = transformers.models.idefics3.Idefics3VisionConfig(**vision)
        config = transformers.Idefics3Config(vision_config=vision_config, text_config=text, image_token_id=IMAGE)
        model = transformers.Idefics3ForConditionalGeneration(config)
    else:
        vision_config = transformers.SmolVLMVisionConfig(**vision)
        config = transformers.SmolVLMConfig(vision_config=vision_config, text_config=text, image_token_id=IMAGE)
        model = transformers.SmolVLMForConditionalGeneration(config)
    frames = pixels(4, size=16, dtype=dtype).view(2, 2, 3, 16, 16).clone()
    frames[0, 1] = 0  # padding
    inputs = texts([1, *[IMAGE] * 4, 6, 7], [1, *[IMAGE] * 4, 5, *[IMAGE] * 4, 9, 6])
    return ready(model, dtype), {"pixel_values": frames, **inputs}


def chinese_clip(dtype=torch.float32):
    import transformers

    text = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 8}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=dict(VISION), projection_dim=10)
    inputs = texts([2, 5, 3], [2, 5, 9, 4, 3])
    return ready(transformers.ChineseCLIPModel(config), dtype), {
        "pixel_values": pixels(dtype=dtype),
        **inputs,
        "token_type_ids": torch.zeros_like(inputs["input_ids"]),
    }


def blip(kind, dtype=torch.float32):
    """Return a BLIP that matches, answers (``vqa``) or describes (``caption``); [CLS] is 2, [SEP] 3, and 38 begins."""
    import transformers

    text = {"vocab_size": 40, "hidden_size": 12, "encoder_hidden_size": 16, "intermediate_size": 20}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    text |= {"bos_token_id": 38, "sep_token_id": 3, "eos_token_id": 39}
    if kind == "vqa":
        text["encoder_hidden_size"] = text["hidden_size"] = 16  # its decoder reads the question instead of the image
    config = transformers.BlipConfig(text_config=text, vision_config=dict(VISION), image_text_hidden_size=10)
    model = {
        "matching": transformers.BlipForImageTextRetrieval,
        "vqa": transformers.BlipForQuestionAnswering,
        "caption": transformers.BlipForConditionalGeneration,
    }[kind](config)
    inputs = texts([38, 7], [38, 9, 8, 6]) if kind == "caption" else texts([2, 7, 3], [2, 9, 8, 7, 3])
    if kind == "vqa":
        inputs |= {f"decoder_{name}": tensor for name, tensor in texts([38], [38]).items()}
    return ready(model, dtype), {"pixel_values": pixels(dtype=dtype), **inputs}


def flava(dtype=torch.float32):
    import transformers

    fusion = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**fusion, "vocab_size": 30, "max_position_embeddings": 8}
    config = transformers.FlavaConfig(
        text_config=text,
        image_config={**VISION, "vocab_size": 10},
        multimodal_config=fusion,
        init_codebook=False,
        return_loss=False,
        hidden_size=16,
    )
    return ready(transformers.FlavaForPreTraining(config), dtype), {
        "pixel_values": pixels(dtype=dtype),
        **texts([2, 7, 3], [2, 9, 8, 7, 3]),
    }


def visual_bert(dtype=torch.float32, kind="VisualBertForQuestionAnswering"):
    """Return as many text tokens as regions; the last region of the first sample is padding."""
    import transformers

    config = transformers.VisualBertConfig(
        vocab_size=30,
        hidden_size=16,
        visual_embedding_dim=6,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        num_labels=4,
    )
    return ready(getattr(transformers, kind)(config), dtype), {
        **texts([2, 7, 3], [2, 9, 8, 7, 3]),
        "visual_embeds": normal(2, 5, 6, dtype=torch.float64).to(dtype),
        "visual_attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
    }


def qformer(kind, dtype=torch.float32):
    """Return images that three queries read; InstructBLIP's queries also see the text."""
    import transformers

    qformer = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    qformer |= {"cross_attention_frequency": 2, "encoder_hidden_size": 16, "vocab_size": 30}
    text = {"vocab_size": 40, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"word_embed_proj_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1}
    options = {"num_query_tokens": 3, "image_token_index": IMAGE}
    inputs = texts([*[IMAGE] * 3, 1, 6, 7], [*[IMAGE] * 3, 1, 8, 9, 6, 4])
    if kind == "blip2":
        config = transformers.Blip2Config(
            vision_config=transformers.Blip2VisionConfig(**VISION),
            qformer_config=transformers.Blip2QFormerConfig(**qformer),
            text_config=transformers.OPTConfig(**text),
            **options,
        )
        model = transformers.Blip2ForConditionalGeneration(config)
    else:
        config = transformers.InstructBlipConfig(
            vision_config=transformers.InstructBlipVisionConfig(**VISION),
            qformer_config=transformers.InstructBlipQFormerConfig(**qformer),
            text_config=transformers.OPTConfig(**text),
            **options,
        )
        model = transformers.InstructBlipForConditionalGeneration(config)
        copy = texts([2, 6, 7], [2, 8, 9, 6])
        inputs |= {f"qformer_{name}": tensor for name, tensor in copy.items()}
    return ready(model, dtype), {"pixel_values": pixels(dtype=dtype), **inputs}


def mllama(dtype=torch.float32):
    """Return an image of one tile and one of two; layer 1 of the decoder attends to the tiles."""
    import transformers

    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "image_size": 12, "patch_size": 4, "max_num_tiles": 2, "vision_output_dim": 32}
    vision |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
    text = {**LANGUAGE, "cross_attention_layers": [1], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    config = transformers.MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    inputs = texts([IMAGE, 1, 6, 7], [IMAGE, 1, 8, 9, 6, 4])
    mask = torch.tensor([[[1, 0]], [[1, 1]]])
    frames = pixels(4, dtype=dtype).view(2, 1, 2, 3, 12, 12).clone()
    frames[0, 0, 1] = 0
    return ready(transformers.MllamaForConditionalGeneration(config), dtype), {
        **inputs,
        "pixel_values": frames,
        "aspect_ratio_ids": torch.tensor([[1], [2]]),
        "aspect_ratio_mask": mask,
        "cross_attention_mask": mask[:, None].expand(-1, 6, -1, -1) * inputs["attention_mask"][:, :, None, None],
    }


def prompt_with(inputs, words):
    """Return the inputs with further tokens after each text, or after each answer of a separate decoder."""
    if "decoder_input_ids" in inputs:
        begun = {name: inputs[f"decoder_{name}"] for name in ("input_ids", "attention_mask")}
        return {**inputs, **{f"decoder_{name}": tensor for name, tensor in prompt_with(begun, words).items()}}
    rows = [
        [*ids[mask.bool()].tolist(), *added]
        for ids, mask, added in zip(inputs["input_ids"], inputs["attention_mask"], words, strict=True)
    ]
    changed = {**inputs, **texts(*rows)}
    if "cross_attention_mask" in inputs:
        count = changed["input_ids"].shape[1]
        changed["cross_attention_mask"] = inputs["cross_attention_mask"][:, :1].expand(-1, count, -1, -1)
        changed["cross_attention_mask"] = changed["cross_attention_mask"] * changed["attention_mask"][:, :, None, None]
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            own = changed["input_ids"] == IMAGE
            if not inputs[name].any():  # PaliGemma, which reads tokens of type 0 in both directions
                own = torch.arange(own.shape[1]) >= inputs["attention_mask"].sum(1, keepdim=True)
            changed[name] = own.to(inputs[name].dtype)
    return changed


MODELS = {
    "clip": clip,
    "siglip": siglip,
    "siglip2": siglip2,
    "chinese_clip": chinese_clip,
    "blip_matching": partial(blip, "matching"),
    "blip_vqa": partial(blip, "vqa"),
    "blip_caption": partial(blip, "caption"),
    "flava": flava,
    "visual_bert": visual_bert,
    "vit": vit,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2_with_registers,
    "bert": bert,
    "llava": llava,
    "llava_siglip": partial(llava, tower="siglip"),
    "qwen2_vl": partial(qwen, 2),
    "qwen2_5_vl": partial(qwen, 2.5),
    "qwen3_vl": partial(qwen, 3),
    "qwen3_5": partial(qwen, 3.5),
    "paligemma": paligemma,
    "gemma3": gemma3,
    "internvl": internvl,
    "llava_next": partial(llava_tiles, "next"),
    "llava_onevision": partial(llava_tiles, "onevision"),
    "idefics3": partial(idefics, "idefics3"),
    "smolvlm": partial(idefics, "smolvlm"),
    "blip2": partial(qformer, "blip2"),
    "instructblip": partial(qformer, "instructblip"),
    "mllama": mllama,
}
