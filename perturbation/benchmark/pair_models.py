"""Tiny models of ``transformers`` that read an image and a text; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import as_hugging_face
from clipmapper.encoder.load import load_encoder
from perturbation.pairs.samples import Pair

TEXT = "what color is the large star left of the circle?"
PHOTO = 128  # width and height of a photo in pixels, those of the scenes of ``shapes``
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
LANGUAGE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def tiny_clip(device: torch.device | str = "cpu") -> tuple[Any, Any]:
    """Return the embedded encoder as a ``CLIPModel``, a dual encoder, with its processor.

    Raises:
        UserError: ``transformers`` is not installed.
    """
    model, processor = as_hugging_face(load_encoder(EncoderConfig(model="shapes-tiny", weights="embedded")))
    return model.to(device), processor


def tiny_llava(device: torch.device | str = "cpu") -> tuple[Any, Any]:
    """Return a LLaVA with random weights, whose vision tower has the size of the embedded encoder's, and its processor.

    Raises:
        UserError: ``transformers`` is not installed.
    """
    clip, clip_processor = tiny_clip()
    import transformers

    tokenizer, vision = _tokenizer(), clip.config.vision_config
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("pad", "image")}
    text = transformers.LlamaConfig(**LANGUAGE, vocab_size=len(tokenizer), pad_token_id=ids["pad_token_id"])
    strategy: dict[str, Any] = {"vision_feature_select_strategy": "default"}
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ids["image_token_id"], **strategy
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    processor = transformers.LlavaProcessor(
        clip_processor.image_processor,
        tokenizer,
        patch_size=vision.patch_size,
        num_additional_image_tokens=1,
        image_token="<image>",
        **strategy,
    )
    return model.to(device), processor


def photos_with_text(count: int) -> list[Pair]:
    """Return pairs of a photo of noise and the same question."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, PHOTO, PHOTO, 3), dtype=np.uint8)
    return [Pair(number, Image.fromarray(photo), TEXT) for number, photo in enumerate(pixels)]


def _tokenizer() -> Any:
    """Return a tokenizer of the question's words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = dict.fromkeys([*SPECIAL, *TEXT.replace("?", " ?").split()])
    whole = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=False))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole, **names, additional_special_tokens=[SPECIAL[4]])
