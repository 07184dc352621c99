"""Models that are folders: ``open_clip_config.json``, weights, and files of a tokenizer where it has one.

A folder of a CLIP that ``transformers`` wrote is read too (:mod:`clipmapper.encoder.from_transformers`).

A name ``hf-hub:ORG/NAME`` is such a folder on the Hugging Face hub, which is downloaded; ``local-dir:FOLDER`` and
``FOLDER`` are folders on this machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from clipmapper.encoder.from_transformers import CONFIG, describe
from clipmapper.encoder.trained_with import BESIDE, Source, read_beside
from clipmapper.errors import UserError, reason

HUB, LOCAL = "hf-hub:", "local-dir:"
WEIGHTS = (  # names of the weights, in open_clip's order
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)


def is_folder(model: str) -> bool:
    """Return whether the name of a model is that of a folder, and not of an architecture of open_clip."""
    return model.startswith((HUB, LOCAL)) or (model not in open_clip.list_models() and Path(model).is_dir())


def resolved(source: Source) -> Source:
    """Return a source whose name is an architecture that open_clip knows.

    The architecture of a folder is registered with open_clip, under a name that depends on its config alone, and its
    weights are a file. Other sources are returned unchanged.

    Raises:
        UserError: The folder does not exist, lacks a file, has a damaged config, or cannot be downloaded; or weights
            are given beside it.
    """
    if not is_folder(source.name):
        if source.weights is None and source.name in open_clip.list_models():
            raise UserError(f"{source.file}: give a weights file or a tag, as {source.model} is no folder")
        return source
    if source.weights is not None:
        raise UserError(
            f"{source.file}: {source.model} has weights of its own; give {source.section}.weights=null"
            + (" (encoder=folder does)" if source.section == "encoder" else "")
        )
    folder = Path(source.name.removeprefix(LOCAL))
    if source.name.startswith(HUB):
        config, weights = _downloaded(source)
        architecture = read_beside(config, source).model_cfg.model_dump()
    elif (folder / CONFIG).is_file() and not (folder / BESIDE).is_file():
        weights = _weights(source, folder)
        architecture, known = describe(folder)
        chosen = {key: value for key, value in asdict(source.given).items() if value is not None}
        source = replace(source, given=replace(known, **chosen))
    else:
        config, weights = _found(source, folder)
        architecture = read_beside(config, source).model_cfg.model_dump()
    # The name is part of the encoder's fingerprint: it must differ between architectures, and not between folders.
    digest = hashlib.blake2b(json.dumps(architecture, sort_keys=True).encode(), digest_size=6).hexdigest()
    name = f"open-clip-{digest}"
    open_clip.factory._MODEL_CONFIGS[name] = architecture  # add_model_config takes a file with another layout
    return replace(source, name=name, weights=str(weights), typed=source.name)


def _found(source: Source, folder: Path) -> tuple[Path, Path]:
    """Return the config and the weights of a folder."""
    if not folder.is_dir():
        raise UserError(f"{source.model}: there is no such folder; give one with {BESIDE} and {WEIGHTS[0]}")
    if not (folder / BESIDE).is_file():
        raise UserError(f"{source.model}: the folder has no {BESIDE}; give a folder of an open_clip model")
    return folder / BESIDE, _weights(source, folder)


def _weights(source: Source, folder: Path) -> Path:
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{source.model}: the folder has no weights; put {WEIGHTS[0]} there")
    return weights


def _downloaded(source: Source) -> tuple[Path, Path]:
    """Return the config and the weights of a model on the hub, downloaded or from the hub's cache."""
    repository = source.name.removeprefix(HUB)
    try:
        config = Path(hf_hub_download(repository, BESIDE))
        for name in WEIGHTS:
            try:
                return config, Path(hf_hub_download(repository, name))
            except EntryNotFoundError:  # also without a network: the cache has no such file
                continue
    except Exception as error:  # the client of the hub raises many error types without a common base class
        raise UserError(
            f"{source.model}: {BESIDE} and the weights are neither in the hub's cache nor can be downloaded "
            f"({reason(error)}); run clipmapper fetch where there is a network, or give "
            f"{source.section}.{'model' if source.section == 'encoder' else 'architecture'}=FOLDER, a folder with both"
        ) from error
    raise UserError(f"{source.model}: it has no weights that open_clip reads, such as {WEIGHTS[0]}; choose another")


def tokenizer_folder(source: Source) -> Path | None:
    """Return the folder of a tokenizer of ``transformers`` beside the weights of a source, if there is one."""
    weights = Path(source.weights or "")
    beside = weights.parent
    there = weights.is_file() and any((beside / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return beside if there else None


def text_config(source: Source) -> dict[str, Any]:
    """Return the part of an architecture's config about its text encoder."""
    about: dict[str, Any] = open_clip.get_model_config(source.name)["text_cfg"]
    return about
