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

    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny.VISION),
        text_config=transformers.LlamaConfig(**tiny.LANGUAGE),
        image_token_id=3,
        vision_feature_select_strategy="default",
    )
    model = randomise(transformers.LlavaForConditionalGeneration(config))
    processor = transformers.LlavaProcessor(
        image_processor(),
        tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=template,
    )
    return model, processor
