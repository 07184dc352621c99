"""Loading of open_clip models by name, with the embedded weights, those of a local file, or those of a hub tag."""

from __future__ import annotations

import difflib
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip

from clipmapper.config.schema import TrainedWithConfig
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, register_embedded
from clipmapper.encoder.towers import TextTower, VisionTower
from clipmapper.encoder.trained_with import Source, trained_with
from clipmapper.encoder.weights_file import fill, read_file
from clipmapper.errors import UserError, reason
from clipmapper.finite import check_finite


def load_open_clip(source: Source) -> Any:
    """Load an open_clip model, with the settings of its preprocessing but without its tokenizer.

    Raises:
        UserError: open_clip has no such architecture, its tokenizer is not CLIP's own BPE, or its towers are not
            supported (:mod:`clipmapper.encoder.towers`); the weights are ``embedded`` and belong to another
            architecture; or they are missing, damaged, NaN, of another architecture or activation, or cannot be
            downloaded.
    """
    check_source(source)
    if source.weights == "embedded":
        source = replace(source, weights=str(EMBEDDED_WEIGHTS))
    return _from_hub(source) if source.weights in _tags(source) else _from_file(source)


def check_source(source: Source) -> None:
    """Check what is known of an encoder before its weights are read, which takes no time.

    Raises:
        UserError: open_clip has no such architecture, or its tokenizer is not CLIP's own BPE; the weights are neither
            a file nor a tag, or ``embedded`` and belong to another architecture or activation.
    """
    register_embedded()
    _check_name(source)
    if source.weights == "embedded":
        if source.name != EMBEDDED_MODEL:
            owner = replace(source, name=EMBEDDED_MODEL).model
            raise UserError(f"{source.file} belongs to {owner}, not to {source.name}")
        given, trained = source.given.quick_gelu, _quick_gelu(EMBEDDED_MODEL)
        if given is not None and given != trained:
            name = "QuickGELU" if trained else "GELU"
            key = f"{source.section}.quick_gelu={str(given).lower()}"
            raise UserError(f"{key}: the embedded encoder was trained with {name}; leave this key out")
    elif source.weights in _tags(source):
        _check_activation(source)
    elif not Path(source.weights).is_file():
        tags = ", ".join(_tags(source)) or "none"
        raise UserError(
            f"{source.file} is neither a file nor a hub tag of {source.name} (tags: {tags}): "
            "give the path of a weights file or one of the tags"
        )


def _tags(source: Source) -> list[str]:
    return list(open_clip.list_pretrained_tags_by_model(source.name))


def activation_note(visual: Any, name: str) -> str:
    """Return the activation of an image encoder as text; nothing if it is that of the architecture ``name``."""
    quick_gelu = isinstance(visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    return "" if quick_gelu == _quick_gelu(name) else f" quick_gelu={quick_gelu}"


def _check_name(source: Source) -> None:
    name, known = source.name, open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise UserError(f"open_clip has no model {name}; similar names: {', '.join(close)}")
    text = open_clip.get_model_config(name)["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UserError(f"{source.model} does not use CLIP's own BPE: choose a plain CLIP model")


def _from_file(source: Source) -> Any:
    model = _created(source.name)  # raises an error for an unsupported model before any weights are read
    file = read_file(source)
    settings = trained_with(source, file.openai)
    if settings.quick_gelu != _quick_gelu(source.name):
        model = _created(source.name, quick_gelu=settings.quick_gelu)
    fill(model, file, source)
    _set_preprocessing(model, settings)
    return model


def _created(name: str, **settings: Any) -> Any:
    """Create a supported model, without open_clip's warning about missing weights, which are loaded later."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model = open_clip.create_model(name, **settings)
    finally:
        logger.setLevel(level)
    VisionTower(model.visual), TextTower(getattr(model, "text", model))  # which raise an error for other towers
    return model


def _set_preprocessing(model: Any, settings: TrainedWithConfig) -> None:
    """Set the preprocessing, as far as it is given, where open_clip keeps it."""
    given = {key: value for key, value in asdict(settings).items() if value is not None and key != "quick_gelu"}
    given |= {key: tuple(given[key]) for key in ("mean", "std") if key in given}
    open_clip.model.set_model_preprocess_cfg(model, {**model.visual.preprocess_cfg, **given})


def _from_hub(source: Source) -> Any:
    _created(source.name)  # raises an error for an unsupported model before any weights are downloaded
    activation = {} if source.given.quick_gelu is None else {"quick_gelu": source.given.quick_gelu}
    try:
        model = open_clip.create_model(source.name, pretrained=source.weights, **activation)
    except Exception as error:  # the client of the hub raises many error types without a common base class
        raise UserError(
            f"{source.file}: cannot be downloaded ({reason(error)}); download the file elsewhere and give its path"
        ) from error
    check_finite(model.state_dict().items(), source.file)
    _set_preprocessing(model, source.given)
    return model


def _quick_gelu(name: str) -> bool:
    """Return whether an architecture has QuickGELU; False if open_clip does not know it."""
    return bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))


def _check_activation(source: Source) -> None:
    """Raise UserError if the weights of a tag were trained with another activation than the model has.

    open_clip only warns about it, and the features would be wrong.
    """
    given = source.given.quick_gelu
    of_model = _quick_gelu(source.name) if given is None else given
    of_tag = bool(open_clip.get_pretrained_cfg(source.name, source.weights).get("quick_gelu"))
    if of_model != of_tag:
        named = source.model if given is None else f"{source.section}.quick_gelu={str(given).lower()}"
        fitting = f"{source.name}-quickgelu" if of_tag else source.name.removesuffix("-quickgelu")
        raise UserError(
            f"{source.file} were trained with{'' if of_tag else 'out'} QuickGELU, unlike {named}: "
            f"choose {replace(source, name=fitting).model if given is None else 'null'}"
        )
