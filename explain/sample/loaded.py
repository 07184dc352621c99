"""Loading of a model of ``transformers`` with its processor, and refusal of damaged files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

# Smallest and largest values of an image processor's settings, wide enough for images from 0 to 255.
_BOUNDS = {"image_mean": (-1e3, 1e3), "image_std": (1e-6, 1e3), "rescale_factor": (1e-6, 1e3), "resample": (0, 5)}
# Sides of sizes, and the greatest length; some models give numbers of pixels as edges.
_EDGES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width", "min_pixels", "max_pixels")
_SIDES = {"size": (_EDGES, 1 << 25), "crop_size": (("height", "width"), 1 << 14)}
_NEEDED = {
    "do_normalize": ("image_mean", "image_std"),
    "do_rescale": ("rescale_factor",),
    "do_center_crop": ("crop_size",),
}


def loaded(model: Any, processor: Any) -> tuple[Any, Any]:
    """Return a model and its processor, each loaded if it is a folder or a name on the hub.

    Raises:
        ValueError: Neither a folder nor a reachable name on the hub; the files are damaged; or weights are missing, NaN
            or infinite.
    """
    if isinstance(model, str):
        import transformers

        name = model
        config = _load(transformers.AutoConfig.from_pretrained, name)
        architecture = (getattr(config, "architectures", None) or ["None"])[0]
        kind = getattr(transformers, str(architecture), None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise ValueError(f"{name}: transformers has no model {architecture}")
        eager: dict[str, Any] = {"attn_implementation": "eager"} if config.model_type == "vilt" else {}
        model, about = _load(partial(kind.from_pretrained, output_loading_info=True, **eager), name)
        model.eval()
        _check_weights(name, model, about["missing_keys"])
        processor = name if processor is None else processor
    if processor is None:
        processor = getattr(model, "name_or_path", "") or None
    if isinstance(processor, str):
        import transformers

        name = processor
        processor = _load(transformers.AutoProcessor.from_pretrained, name)
        _check_images(name, getattr(processor, "image_processor", processor))
    return model, processor


def _load(load: Any, name: str) -> Any:
    try:
        return load(name)
    except ImportError as error:  # of a package that only this model's processor needs
        raise ValueError(f"cannot load {name!r}: {_line(error)}") from error
    except Exception as error:  # damaged files raise errors of many types
        if Path(name).is_dir() and (Path(name) / "config.json").is_file():
            line = _line(error)[:200] or type(error).__name__
            raise ValueError(f"cannot load {name!r}: {line}; replace the damaged or missing file") from error
        raise ValueError(
            f"cannot load {name!r}: it is no folder with such files, and no model that the Hugging Face hub gives "
            "(without a network, give the folder of a downloaded model)"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_weights(name: str, model: Any, missing: Any) -> None:
    if missing:
        raise ValueError(f"{name}: its files lack the weights {min(missing)}, which would be random: download it again")
    for weight, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: the weights {weight} contain NaN or infinite values: download it again")


def _check_images(name: str, images: Any) -> None:
    """Raise ValueError if a setting of the preprocessing of images is no valid number; a tokenizer has none."""
    for key, (least, most) in _BOUNDS.items():
        value = getattr(images, key, None)
        numbers = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        valid = all(isinstance(number, (int, float)) and least <= number <= most for number in numbers)
        if not valid or (isinstance(value, (list, tuple)) and len(value) not in (1, 3)):
            raise ValueError(
                f"{name}: {key}={value!r} of its image processor must be one or three numbers from {least:g} to "
                f"{most:g}: correct its JSON file"
            )
    for switch, keys in _NEEDED.items():
        for key in keys:
            if getattr(images, switch, False) is True and getattr(images, key, None) is None:
                raise ValueError(f"{name}: {key} of its image processor is missing, which {switch} needs: add it")
    if getattr(images, "do_resize", False) is True and images.size is None and getattr(type(images), "size", None):
        raise ValueError(f"{name}: size of its image processor is missing, which do_resize needs: add it")
    for key, (sides, most) in _SIDES.items():
        held = getattr(images, key, None)
        for side, length in (held if isinstance(held, Mapping) else getattr(held, "__dict__", {})).items():
            if length is not None and (type(length) is not int or not 1 <= length <= most or side not in sides):
                raise ValueError(
                    f"{name}: {key}.{side}={length!r} of its image processor must be one of {', '.join(sides)}, and a "
                    f"whole number from 1 to {most}: correct its JSON file"
                )
