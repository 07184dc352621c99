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


def vit(dtype=torch.float32):
    import transformers

    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION, num_labels=4))
    return ready(model, dtype), {"pixel_values": pixels(dtype=dtype)}


def dinov2(dtype=torch.float32):
    import transformers

    config = transformers.Dinov2Config(**{**VISION, "mlp_ratio": 2}, num_labels=4)
    return ready(transformers.Dinov2ForImageClassification(config), dtype), {"pixel_values": pixels(dtype=dtype)}


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


def prompt_with(inputs, words):
    """Return the inputs with further tokens after each text."""
    rows = [
        [*ids[mask.bool()].tolist(), *added]
        for ids, mask, added in zip(inputs["input_ids"], inputs["attention_mask"], words, strict=True)
    ]
    changed = {**inputs, **texts(*rows)}
    if "mm_token_type_ids" in inputs:
        changed["mm_token_type_ids"] = (changed["input_ids"] == IMAGE).int()
    return changed


MODELS = {
    "clip": clip,
    "siglip": siglip,
    "vit": vit,
    "dinov2": dinov2,
    "bert": bert,
    "llava": llava,
    "llava_siglip": partial(llava, tower="siglip"),
    "qwen2_vl": partial(qwen, 2),
    "qwen2_5_vl": partial(qwen, 2.5),
}
