"""More tiny random models of ``transformers`` with processors: families that tile, average or query an image."""

from functools import partial

import hugging_face_models as tiny
import sample_models as samples
from adapter_checks import randomise
from sample_models import TEMPLATE, tokenizer


def smolvlm():
    """Return a SmolVLM that reads 2 × 3 tiles of the photo of 30 × 20 pixels, and the whole of it."""
    import transformers
    from transformers.models.smolvlm import processing_smolvlm

    processing_smolvlm.num2words = processing_smolvlm.num2words or str  # of a package that only videos need
    vision = transformers.SmolVLMVisionConfig(**{**tiny.VISION, "image_size": 16})
    text = transformers.LlamaConfig(**{**tiny.LANGUAGE, "vocab_size": 120, "max_position_embeddings": 256})
    config = transformers.SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=3)
    model = randomise(transformers.SmolVLMForConditionalGeneration(config))
    marks = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    marks += [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 5)]
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<image>", *marks]})
    for name, mark in (("fake_image", "<fake_token_around_image>"), ("global_image", "<global-img>")):
        setattr(words, f"{name}_token", mark)
    words.image_token, words.end_of_utterance_token = "<image>", "<end_of_utterance>"
    images = transformers.SmolVLMImageProcessor(size={"longest_edge": 48}, max_image_size={"longest_edge": 16})
    video = transformers.SmolVLMVideoProcessor(
        size={"longest_edge": 48}, max_image_size={"longest_edge": 16}, video_sampling={"fps": 1, "max_frames": 2}
    )
    return model, transformers.SmolVLMProcessor(images, words, video, image_seq_len=4, chat_template=TEMPLATE)


def llava_onevision():
    """Return a LLaVA-OneVision that reads an image, and two tiles side by side or one above the other."""
    import transformers

    model = samples.with_image_token("llava_onevision")
    model.config.vision_aspect_ratio = "anyres_max_9"
    points, size = model.config.image_grid_pinpoints, {"height": 12, "width": 12}
    images = transformers.LlavaOnevisionImageProcessor(image_grid_pinpoints=points, size=size)
    processor = transformers.LlavaOnevisionProcessor(
        images,
        tokenizer(),
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
        image_token="<image>",
        video_token="<unk>",
    )
    return model, processor


def siglip2():
    """Return a SigLIP 2, which reads an image in its own shape: 2 × 3 patches of the photo of 30 × 20 pixels."""
    import transformers

    text = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 9, "projection_size": 16}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = {key: value for key, value in tiny.VISION.items() if key != "image_size"}
    config = transformers.Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 9})
    images = transformers.Siglip2ImageProcessor(patch_size=4, max_num_patches=9)
    return randomise(transformers.Siglip2Model(config)), transformers.Siglip2Processor(images, tokenizer())


#: The models that ``explain.explain`` is tested with, by the names of ``hugging_face_models.MODELS``.
SAMPLES = {
    "clip": samples.clip,
    "siglip": samples.siglip,
    "vit": samples.vit,
    "dinov2": samples.dinov2,
    "dinov2_with_registers": partial(samples.dinov2, "dinov2_with_registers"),
    "bert": samples.bert,
    "llava": samples.llava,
    "qwen2_vl": partial(samples.packed, "qwen2_vl", "Qwen2VLProcessor"),
    "qwen2_5_vl": samples.qwen,
    "qwen3_vl": partial(samples.packed, "qwen3_vl", "Qwen3VLProcessor"),
    "qwen3_5": partial(samples.packed, "qwen3_5", "Qwen3VLProcessor"),
    "paligemma": samples.paligemma,
    "gemma3": samples.gemma3,
    "internvl": samples.internvl,
    "llava_next": samples.llava_next,
    "idefics3": samples.idefics3,
    "blip2": samples.blip2,
    "instructblip": samples.instructblip,
    "open_clip": samples.open_clip,
    "vilt": samples.vilt,
    "siglip2": siglip2,
    "smolvlm": smolvlm,
    "llava_onevision": llava_onevision,
    "chinese_clip": partial(samples.matching, "chinese_clip"),
    "blip_matching": partial(samples.matching, "blip"),
    "flava": partial(samples.matching, "flava"),
}
