"""Loading of open_clip models by name, with the embedded weights, those of a local file, or those of a hub tag.

Models that are folders (:mod:`clipmapper.encoder.folders`) have an architecture of their own and a local file.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip

from clipmapper.config.schema import TrainedWithConfig
from clipmapper.encoder.folders import resolved, text_config, tokenizer_folder
from clipmapper.encoder.hub_tokenizer import HubTokenizer
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, register_embedded
from clipmapper.encoder.timm_tower import vision_tower
from clipmapper.encoder.towers import TextTower
from clipmapper.encoder.trained_with import BESIDE, Source, trained_with
from clipmapper.encoder.weights_file import fill, read_file
from clipmapper.errors import UserError, reason
from clipmapper.finite import check_finite


def load_open_clip(source: Source) -> Any:
    """Load an open_clip model, with the settings of its preprocessing but without its tokenizer.

    Raises:
        UserError: open_clip has no such architecture, or its towers are not supported
            (:mod:`clipmapper.encoder.towers`); the weights are ``embedded`` and belong to another architecture; or they
            are missing, damaged, NaN, of another architecture or activation, or cannot be downloaded.
    """
    source = check_source(source)
    if source.weights == "embedded":
        source = replace(source, weights=str(EMBEDDED_WEIGHTS))
    return _from_hub(source) if source.weights in _tags(source) else _from_file(source)


def check_source(source: Source) -> Source:
    """Check what is known of an encoder before its weights are read, which takes no time.

    Returns:
        The source as :func:`~clipmapper.encoder.folders.resolved` returns it.

    Raises:
        UserError: open_clip has no such architecture or folder, or its text encoder is another model; the weights are
            neither a file nor a tag, or ``embedded`` and belong to another architecture or activation.
    """
    register_embedded()
    source = resolved(source)
    _check_name(source)
    assert source.weights is not None
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
    return source


def load_tokenizer(source: Source) -> Any:
    """Return the tokenizer of a source that was checked: CLIP's own BPE, or a :class:`HubTokenizer`.

    Raises:
        UserError: ``transformers`` is not installed, or the files of the tokenizer are missing or damaged.
    """
    about = text_config(source)
    name = about.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(source.name)
    folder = tokenizer_folder(source)
    options = {"clean": "whitespace", **about.get("tokenizer_kwargs", {})}
    context = about.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    mode = {"tokenizer_mode": about["tokenizer_mode"]} if about.get("tokenizer_mode") else {}
    try:
        whole = open_clip.tokenizer.HFTokenizer(str(folder or name), context_length=context, **mode, **options)
    except ImportError as error:
        raise UserError(
            f'{source.model} has a tokenizer of transformers, which is not installed: pip install -e ".[transformers]"'
        ) from error
    except Exception as error:  # damaged files raise errors of many types, and so does the client of the hub
        where = folder or f"{name} on the hub"
        raise UserError(
            f"{source.model}: its tokenizer, {where}, cannot be read ({reason(error)}); run clipmapper fetch where "
            "there is a network, or put tokenizer.json and tokenizer_config.json beside the weights"
        ) from error
    return HubTokenizer(whole, fills_context=about.get("pool_type", "argmax") == "last")


def _tags(source: Source) -> list[str]:
    return list(open_clip.list_pretrained_tags_by_model(source.name))


def activation_note(text: Any, name: str) -> str:
    """Return the activation of a text encoder as text; nothing if it is that of the architecture ``name``."""
    quick_gelu = isinstance(text.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    return "" if quick_gelu == _quick_gelu(name) else f" quick_gelu={quick_gelu}"


def _check_name(source: Source) -> None:
    name, known = source.name, open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise UserError(
            f"open_clip has no model {name}, and there is no such folder; similar names: {', '.join(close)}"
        )
    if other := text_config(source).get("hf_model_name"):
        raise UserError(f"{source.model} has the text encoder {other} of transformers: choose one of open_clip's own")


def _from_file(source: Source) -> Any:
    model = _created(source)  # raises an error for an unsupported model before any weights are read
    file = read_file(source)
    settings = trained_with(source, file.openai)
    if settings.quick_gelu != _quick_gelu(source.name):
        model = _created(source, quick_gelu=settings.quick_gelu)
    fill(model, file, source)
    _set_preprocessing(model, settings)
    return model


def _created(source: Source, **settings: Any) -> Any:
    """Create a supported model, without open_clip's warning about missing weights, which are loaded later."""
    try:
        with _without_messages():
            model = open_clip.create_model(source.name, **settings)
    except Exception as error:  # the config of a folder may hold anything
        if source.typed is None:
            raise
        raise UserError(
            f"{source.model}: open_clip cannot create what its {BESIDE} describes ({reason(error)}); correct it"
        ) from error
    vision_tower(model.visual), TextTower(getattr(model, "text", model))  # which raise an error for other towers
    return model


@contextmanager
def _without_messages() -> Iterator[None]:
    """Hide what open_clip logs: missing weights, which are loaded later, and errors, which are raised too."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _set_preprocessing(model: Any, settings: TrainedWithConfig) -> None:
    """Set the preprocessing, as far as it is given, where open_clip keeps it."""
    given = {key: value for key, value in asdict(settings).items() if value is not None and key != "quick_gelu"}
    given |= {key: tuple(given[key]) for key in ("mean", "std") if key in given}
    open_clip.model.set_model_preprocess_cfg(model, {**model.visual.preprocess_cfg, **given})


def _from_hub(source: Source) -> Any:
    _created(source)  # raises an error for an unsupported model before any weights are downloaded
    activation = {} if source.given.quick_gelu is None else {"quick_gelu": source.given.quick_gelu}
    try:
        with _without_messages():
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
