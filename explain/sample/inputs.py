"""What a processor of ``transformers`` makes of one sample, and the checks of images and texts before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

OF_IMAGES = ("vit", "dinov2", "dinov2_with_registers")
ONE_IMAGE = ("clip", "chinese_clip", "siglip", "siglip2", "vilt", "blip", "flava", "blip-2", "instructblip", *OF_IMAGES)
ONE_TILED_IMAGE = ("llava_next", "llava_onevision")


def checked_images(model: Any, photos: Sequence[Image.Image], text: str | None) -> None:
    """Raise ValueError if a model gets too few or too many images, or no text."""
    kind, name = model.config.model_type, type(model).__name__
    if kind == "bert" and photos:
        raise ValueError(f"{len(photos)} images: {name} reads texts alone")
    if kind != "bert" and not photos:
        raise ValueError(f"no image: {name} needs one, because a text alone is not explained here")
    if kind in (*ONE_IMAGE, *ONE_TILED_IMAGE) and len(photos) > 1:
        raise ValueError(f"{len(photos)} images: {name} takes one")
    reads_text = kind not in OF_IMAGES
    if reads_text and (not isinstance(text, str) or not text.strip()):
        raise ValueError(f"no text: {name} needs a question or another text")
    if not reads_text and text is not None:
        raise ValueError(f"text={text!r}: {name} reads images alone")


def processed(
    model: Any, processor: Any, photos: Sequence[Any], text: str | Sequence[str] | None, **options: Any
) -> dict[str, Any]:
    """Return the inputs of a model on its device, with images in its precision.

    Args:
        model: The model.
        processor: Its processor.
        photos: The images of one text, or of each of several texts.
        text: A text, several of them, or None.
        **options: Further arguments of the processor.

    Raises:
        ValueError: The processor refuses the sample, or what it gives does not fit the model.
    """
    given: dict[str, Any] = {"images": list(photos)} if photos else {}
    given |= {} if text is None else {"text": [text] if isinstance(text, str) else list(text)}
    name = type(processor).__name__
    try:
        made = processor(**given, return_tensors="pt", **options)
    except Exception as error:  # processors raise whatever they like
        line = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"processor {name} does not fit a {type(model).__name__}: {line}") from error
    first = next(model.parameters())
    inputs = {key: _moved(value, first) for key, value in dict(made).items()}
    for wanted, there in (("pixel_values", bool(photos)), ("input_ids", text is not None)):
        if there and not isinstance(inputs.get(wanted), Tensor):
            raise ValueError(f"processor {name} does not fit a {type(model).__name__}: it gave no {wanted}")
    _check_ids(model, inputs.get("input_ids"), name)
    return inputs


def _moved(value: Any, like: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)


def _check_ids(model: Any, ids: Tensor | None, name: str) -> None:
    """Raise ValueError if the tokenizer has tokens that the model has not, or the text is too long for the model."""
    config = model.config.get_text_config()
    count, room = getattr(config, "vocab_size", None), getattr(config, "max_position_embeddings", None)
    if ids is not None and model.config.model_type in ("bert", "vilt") and ids.shape[1] > int(room or ids.shape[1]):
        raise ValueError(f"a text of {ids.shape[1]} tokens: {type(model).__name__} reads at most {room}")
    if ids is not None and isinstance(count, int) and ids.numel() and int(ids.max()) >= count:
        raise ValueError(
            f"processor {name} does not fit a {type(model).__name__}: token {int(ids.max())} of {count} tokens"
        )
