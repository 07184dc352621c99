"""The folders of the feature cache, and the encoder that fills it."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder, use
from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.process.partial import remove_left_over

STORES = "stores"  #: folder of the stores in ``paths.cache``
HASHES = "hashes"  #: folder of the index of image files in ``paths.cache``


def open_store(cache: Path, encoder: FrozenClip, config: EncoderConfig, kind: str) -> Catalogue:
    """Open the store of an encoder, which may be empty, and remove what killed processes have left in the cache.

    Args:
        cache: The folder ``paths.cache``.
        encoder: The encoder; every weight and its preprocessing choose the store.
        config: Precision of the features.
        kind: images or texts.
    """
    about = f"{encoder.fingerprint()} {config.feature_dtype} {kind}"
    key = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", encoder.name)
    catalogue = Catalogue(cache / STORES / f"{name}-{kind}-{config.feature_dtype}-{key}")
    catalogue.refresh()
    for folder in (catalogue.folder, cache / HASHES):
        remove_left_over(folder.glob(".*.partial"))
    with suppress(OSError):
        os.utime(catalogue.folder)  # when it was last used
    return catalogue


def ready_encoder(config: Config) -> tuple[FrozenClip, torch.device, Path]:
    """Load the encoder of the config and move it to the device of the config's trainer.

    Returns:
        The frozen encoder, its device, and the folder of the feature cache.

    Raises:
        UserError: The encoder cannot be loaded (see :func:`~clipmapper.encoder.load.load_encoder`), it has no token
            that the mapper reads, or there is no such device.
    """
    device = use(config)
    encoder = load_encoder(config.encoder)
    if not encoder.vision.first and config.mapper.readout != "token":
        raise UserError(
            f"mapper.readout={config.mapper.readout}: encoder.model={config.encoder.model} has no class token; "
            "give mapper.readout=token"
        )
    return encoder.to(device), device, Path(config.paths.cache)
