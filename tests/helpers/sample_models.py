"""Tiny random models of ``transformers`` and open_clip with their processors, made without a download."""

import hugging_face_models as tiny
import torch
from adapter_checks import normal, randomise
from PIL import Image

WORDS = ["what", "color", "is", "the", "star", "square", "circle", "?", "<", "&", "red", "blue", "yes", "no", "USER"]
MORE = ["ASSISTANT", ":", "Answer", "Be", "brief", "."]
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<unk>", "<vs>", "<ve>"]
#: A template that says the question's words before and after the question.
TEMPLATE = (
    "{{ '<s>' }}Be brief . what is the color ? {% for m in messages %}USER: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %} {{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    " Answer what color is . ASSISTANT:"
)
QUESTION = "what color is the star?"


def photo(size=(30, 20), seed=0):
    """Return a random photo of a width and height."""
    pixels = (normal(size[1], size[0], 3, seed=seed).sigmoid() * 255).to(torch.uint8)
    return Image.fromarray(pixels.numpy())


def tokenizer(kind="PreTrainedTokenizerFast", **options):
    """Return a fast tokenizer of whole words and marks, whose ids are below 30."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *WORDS, *MORE])}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    more = {"additional_special_tokens": ["<image>", "<vs>", "<ve>"]}
    return getattr(transformers, kind)(tokenizer_object=whole, **names, **more, **options)


def image_processor(side=12, **options):
    import transformers

    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return transformers.CLIPImageProcessor(**size, **options)


def llava(template=TEMPLATE):
    import transformers

    processor = transformers.LlavaProcessor(
        image_processor(),
        tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=template,
    )
    return with_image_token("llava"), processor


def qwen():
    """Return a Qwen2.5-VL, whose patches of 4 pixels are merged 2 × 2."""
    import transformers

    vision = {"depth": 3, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
    vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16}
    vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e4}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**tiny.LANGUAGE, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=3,
        video_token_id=38,
        vision_start_token_id=5,
        vision_end_token_id=6,
    )
    model = randomise(transformers.Qwen2_5_VLForConditionalGeneration(config))
    images = transformers.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    words = tokenizer()
    words.image_token, words.video_token = "<image>", "<unk>"
    template = TEMPLATE.replace("'image' %}<image>", "'image' %}<vs><image><ve>")
    video = transformers.Qwen2VLVideoProcessor(patch_size=4, merge_size=2)
    return model, transformers.Qwen2_5_VLProcessor(images, words, video, chat_template=template)


def clip():
    import transformers

    text = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 28, "pad_token_id": 0}
    config = transformers.CLIPConfig(text_config=text, vision_config=dict(tiny.VISION), projection_dim=10)
    return randomise(transformers.CLIPModel(config)), transformers.CLIPProcessor(image_processor(), ended())


def ended():
    """Return a tokenizer that puts <s> before a text and <end>, the token 28, after it."""
    from tokenizers.processors import TemplateProcessing

    made = tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<end>"]})
    number = made.convert_tokens_to_ids("<end>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <end>", special_tokens=[("<s>", 1), ("<end>", number)]
    )
    return made


def siglip():
    import transformers

    text = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 30, "max_position_embeddings": 9, "projection_size": 16}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.SiglipConfig(text_config=text, vision_config=dict(tiny.VISION))
    images = transformers.SiglipImageProcessor(size={"height": 12, "width": 12})
    return randomise(transformers.SiglipModel(config)), transformers.SiglipProcessor(images, tokenizer())


def blip2():
    import transformers

    images = transformers.BlipImageProcessor(size={"height": 12, "width": 12})
    processor = transformers.Blip2Processor(images, tokenizer(), num_query_tokens=3)
    return with_image_token("blip2"), processor


def matching(kind):
    """Return a BLIP or a FLAVA that matches, or a Chinese-CLIP; their tokenizer is BERT's."""
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    text, size = {**sizes, "vocab_size": 40, "max_position_embeddings": 12}, {"size": {"height": 12, "width": 12}}
    if kind == "blip":
        text |= {"encoder_hidden_size": 16, "bos_token_id": 38, "sep_token_id": 3}
        config = transformers.BlipConfig(text_config=text, vision_config=dict(tiny.VISION))
        model, images = transformers.BlipForImageTextRetrieval(config), transformers.BlipImageProcessor(**size)
        return randomise(model), transformers.BlipProcessor(images, bert_like())
    if kind == "flava":
        options = {"image_config": {**tiny.VISION, "vocab_size": 10}, "multimodal_config": sizes, "hidden_size": 16}
        config = transformers.FlavaConfig(text_config=text, init_codebook=False, return_loss=False, **options)
        images = transformers.FlavaImageProcessor(**size, crop_size={"height": 12, "width": 12})
        return randomise(transformers.FlavaForPreTraining(config)), transformers.FlavaProcessor(images, bert_like())
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=dict(tiny.VISION), projection_dim=10)
    images = transformers.ChineseCLIPImageProcessor(**size, do_center_crop=False)
    return randomise(transformers.ChineseCLIPModel(config)), transformers.ChineseCLIPProcessor(images, bert_like())


def vilt():
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViltConfig(vocab_size=40, image_size=96, num_labels=4, **sizes)
    config._attn_implementation = "eager"
    images = transformers.ViltImageProcessor(size={"shortest_edge": 96}, size_divisor=32)
    return randomise(transformers.ViltForQuestionAnswering(config)), transformers.ViltProcessor(images, bert_like())


def bert_like():
    import transformers

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "color", "is", "the", "st", "##ar", "?"]
    return transformers.BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)})


def vit():
    import transformers

    return tiny.vit()[0], transformers.ViTImageProcessor(size={"height": 12, "width": 12})


def dinov2(name="dinov2"):
    """Return a DINOv2, or one with registers."""
    import transformers

    return tiny.MODELS[name]()[0], transformers.BitImageProcessor(
        size={"shortest_edge": 12}, crop_size={"height": 12, "width": 12}
    )


def bert():
    import transformers

    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        num_labels=4,
    )
    return randomise(transformers.BertForSequenceClassification(config)), bert_like()


def open_clip():
    import open_clip
    from adapter_models import tiny_clip

    words = open_clip.SimpleTokenizer(context_length=12)
    model = tiny_clip(torch.float32, text={"vocab_size": words.vocab_size, "context_length": 12})
    return model, (open_clip.image_transform(24, is_train=False), words)


def with_image_token(name):
    """Return a model of ``hugging_face_models`` whose image token is that of the tokenizer."""
    model, _ = tiny.MODELS[name]()
    model.config.image_token_id = 3
    return model


def packed(name, processor):
    """Return a Qwen-VL, whose patches of 2 pixels are merged 2 × 2."""
    import transformers

    sizes = {"patch_size": 2, "merge_size": 2}
    images = transformers.Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 16, "longest_edge": 256})
    words = marked(vision_start="<vs>", vision_end="<ve>", image="<image>", video="<unk>")
    video = transformers.Qwen2VLVideoProcessor if name == "qwen2_vl" else transformers.Qwen3VLVideoProcessor
    template = TEMPLATE.replace("'image' %}<image>", "'image' %}<vs><image><ve>")
    made = getattr(transformers, processor)(images, words, video(**sizes), chat_template=template)
    return with_image_token(name), made


def marked(**tokens):
    """Return a tokenizer with attributes for special tokens, such as ``image_token`` and ``image_token_id``."""
    words = tokenizer()
    for name, token in tokens.items():
        setattr(words, f"{name}_token", token)
        setattr(words, f"{name}_token_id", words.convert_tokens_to_ids(token))
    return words


def gemma3():
    import transformers

    words = marked(boi="<vs>", eoi="<ve>", image="<image>")
    images = transformers.Gemma3ImageProcessor(size={"height": 16, "width": 16})
    template = TEMPLATE.replace("<image>", "<vs>")
    return with_image_token("gemma3"), transformers.Gemma3Processor(
        images, words, image_seq_length=4, chat_template=template
    )


def paligemma():
    import transformers

    images = transformers.SiglipImageProcessor(size={"height": 12, "width": 12})
    images.image_seq_length = 9
    return with_image_token("paligemma"), transformers.PaliGemmaProcessor(images, marked(image="<image>"))


def instructblip():
    import transformers

    images = transformers.BlipImageProcessor(size={"height": 12, "width": 12})
    processor = transformers.InstructBlipProcessor(images, tokenizer(), bert_like(), num_query_tokens=3)
    return with_image_token("instructblip"), processor


def idefics3():
    """Return an Idefics3 that reads 2 × 3 tiles of the photo of 30 × 20 pixels, and the whole of it."""
    import transformers

    vision = transformers.models.idefics3.Idefics3VisionConfig(**{**tiny.VISION, "image_size": 16})
    text = transformers.LlamaConfig(**{**tiny.LANGUAGE, "vocab_size": 120, "max_position_embeddings": 256})
    config = transformers.Idefics3Config(vision_config=vision, text_config=text, image_token_id=3)
    model = randomise(transformers.Idefics3ForConditionalGeneration(config))
    marks = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    marks += [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 5)]
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<image>", *marks]})
    images = transformers.Idefics3ImageProcessor(size={"longest_edge": 48}, max_image_size={"longest_edge": 16})
    return model, transformers.Idefics3Processor(images, words, image_seq_len=4, chat_template=TEMPLATE)


def llava_next():
    """Return a LLaVA-Next that reads an image, and two tiles side by side or one above the other."""
    import transformers

    model = with_image_token("llava_next")
    size = {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}
    images = transformers.LlavaNextImageProcessor(image_grid_pinpoints=model.config.image_grid_pinpoints, **size)
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )
    return model, processor


def internvl():
    """Return an InternVL that reads tiles of 16 × 16 pixels, at most four, and the whole photo."""
    import transformers

    words = marked(start_image="<vs>", end_image="<ve>", context_image="<image>", video="<unk>")
    images = transformers.GotOcr2ImageProcessor(size={"height": 16, "width": 16}, min_patches=2, max_patches=4)
    video = transformers.InternVLVideoProcessor()
    processor = transformers.InternVLProcessor(images, words, video, image_seq_length=4, chat_template=TEMPLATE)
    return with_image_token("internvl"), processor
