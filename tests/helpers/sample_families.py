"""More tiny random models of ``transformers`` with processors: families that tile, average or query an image."""

import hugging_face_models as tiny
import sample_models as samples
import torch
from adapter_checks import randomise
from sample_models import TEMPLATE, tokenizer


def gemma3():
    """Return a Gemma 3 that averages 4 × 4 patches to 2 × 2 tokens."""
    import transformers

    model, _ = tiny.gemma3()
    words = tokenizer(extra_special_tokens={"image_token": "<image>", "boi_token": "<vs>", "eoi_token": "<ve>"})
    images = transformers.Gemma3ImageProcessor(size={"height": 16, "width": 16})
    model.config.image_token_id = model.model.config.image_token_id = words.convert_tokens_to_ids("<image>")
    processor = transformers.Gemma3Processor(
        images, words, image_seq_length=4, chat_template=TEMPLATE.replace("<image>", "<vs>")
    )
    return randomise(model), processor


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


def instructblip():
    import transformers

    model, _ = tiny.qformer("instructblip")
    images = transformers.BlipImageProcessor(size={"height": 12, "width": 12})
    model.config.image_token_id = 3
    processor = transformers.InstructBlipProcessor(images, tokenizer(), tokenizer(), num_query_tokens=3)
    return randomise(model), processor


def llava_onevision():
    """Return a LLaVA-OneVision that reads an image, and two tiles side by side or one above the other."""
    import transformers

    points = [[12, 24], [24, 12]]
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**tiny.VISION),
        text_config=transformers.Qwen2Config(**tiny.LANGUAGE),
        image_token_id=3,
        image_grid_pinpoints=points,
        vision_aspect_ratio="anyres_max_9",
    )
    images = transformers.LlavaOnevisionImageProcessor(image_grid_pinpoints=points, size={"height": 12, "width": 12})
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
    return randomise(transformers.LlavaOnevisionForConditionalGeneration(config)), processor


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


def dinov2():
    import transformers

    model, _ = tiny.dinov2()
    size = {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}
    return randomise(model), transformers.BitImageProcessor(**size)


def bert():
    model, _ = tiny.bert()
    return randomise(model.to(torch.float32)), samples.bert_like()
