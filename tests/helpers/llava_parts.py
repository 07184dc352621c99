"""A small LLaVA before training, with a few drawn scenes."""

from __future__ import annotations

from functools import cache
from typing import Any

from schemas import values
from torch import Tensor

from clipmapper.config.data import ShapesConfig
from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import as_hugging_face
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.llava.config import DecoderConfig, TrainLlavaConfig
from clipmapper.llava.conversations import DESCRIBE, Pictures, draw_pictures, patch_tokens
from clipmapper.llava.model import build_model
from clipmapper.llava.run import LONGEST
from clipmapper.llava.words import build_processor, build_tokenizer, vocabulary


def shapes(**changes: Any) -> ShapesConfig:
    sizes = {"root": "", "train_scenes": 40, "val_scenes": 4, "test_scenes": 4, "workers": 1}
    return ShapesConfig(**{**values("data/shapes"), **sizes, **changes})


def config(**changes: Any) -> TrainLlavaConfig:
    given = {**values("train_llava"), "data": shapes(), "decoder": DecoderConfig(layers=2, heads=2, mlp_width=64)}
    return TrainLlavaConfig(**{**given, "steps": 4, "warmup_steps": 1, "batch_size": 8, "paths": None, **changes})


@cache
def clip() -> tuple[FrozenClip, Any, Any]:
    """Return the embedded encoder, and the same as a model of transformers with its image processor."""
    encoder = load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 32))
    model, processor = as_hugging_face(encoder)
    return encoder, model, processor.image_processor


def encode(images: Any) -> Tensor:
    _, model, processor = clip()
    return patch_tokens(model.vision_model, processor, images)


@cache
def pictures(split: str = "train") -> Pictures:
    return draw_pictures(shapes(), split, encode)


@cache
def words() -> dict[str, int]:
    return vocabulary(
        [DESCRIBE, *(text for split in ("train", "val") for item in pictures(split).items for text in item.texts)]
    )


def model() -> Any:
    return build_model(clip()[1], words(), config().decoder, LONGEST)


def processor() -> Any:
    return build_processor(clip()[2], build_tokenizer(words(), LONGEST), 10)
