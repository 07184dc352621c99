"""What a training will have to encode: counts, bytes and a predicted time, before anything is encoded."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from clipmapper.config.schema import Config
from clipmapper.console import clock, print_table, progress
from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.data.records import ImageSource
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.folders import HASHES, open_store, ready_encoder
from clipmapper.features.hashes import Hashes, text_key
from clipmapper.features.inventory import size
from clipmapper.features.shard import as_keys
from clipmapper.features.trial import spread

_TRIED = 64  # images, or texts, that are encoded to predict the time of all


def print_sizes(config: Config, images: Mapping[int, ImageSource], texts: Sequence[str]) -> FrozenClip:
    """Check the encoder, the image files and the free space, and print what is to be encoded.

    Args:
        config: The config of the training.
        images: All images by image id.
        texts: All texts.

    Returns:
        The encoder.

    Raises:
        UserError: The encoder cannot be loaded, an image file is missing, or the features do not fit on the disk.
    """
    encoder, device, cache = ready_encoder(config)
    check_files(images.values(), config.data.on_bad_image)
    new = _new(images.values(), open_store(cache, encoder, config.encoder, "images"), Hashes(cache / HASHES))
    distinct = sorted(set(texts))
    there = open_store(cache, encoder, config.encoder, "texts").has(as_keys([text_key(text) for text in distinct]))
    fresh = [text for text, found in zip(distinct, there.tolist(), strict=True) if not found]
    number = torch.tensor([], dtype=getattr(torch, config.encoder.feature_dtype)).element_size()
    rows: list[list[str]] = []
    needed = 0
    with torch.inference_mode():
        begun = time.monotonic()
        if some := _loaded(spread(new, _TRIED), config.data.on_bad_image):
            encoder.vision(encoder.pixels(some).to(device)).features.cpu()
            seconds = (time.monotonic() - begun) / len(some)
            each = encoder.vision.token_count * encoder.vision.width * number
            rows.append(_row("images", len(images), len(new), each, seconds))
            needed += each * len(new)
        if few := spread(fresh, _TRIED):
            begun = time.monotonic()
            batch = encoder.tokenize(few)
            encoder.text(batch.ids.to(device), batch.valid.to(device)).features.cpu()
            seconds = (time.monotonic() - begun) / len(few)
            each = int(batch.valid.sum()) * encoder.text.width * number // len(few)
            rows.append(_row("texts", len(distinct), len(fresh), each, seconds))
            needed += each * len(fresh)
    above = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(above).free
    title = f"to be encoded on {device.type} by {encoder.name}, into {cache}, which has {size(free)} free"
    note = f"Predicted from {_TRIED} items of each kind, for one process. Items that the cache has are not encoded."
    print_table(title, ["kind", "items", "to encode", "space", "time"], rows, note)
    if needed > free:
        raise UserError(f"paths.cache={cache}: {size(needed)} are needed for features, but {size(free)} are free")
    return encoder


def _new(images: Iterable[ImageSource], stored: Catalogue, hashes: Hashes) -> list[ImageSource]:
    """Return the images that a store lacks, or whose content hash is not remembered."""
    sources = list(images)
    with progress(len(sources), "looking images up", "images") as advance:
        new = []
        for source in sources:
            key = hashes.known(source)
            if key is None or not stored.has(as_keys([key]))[0]:
                new.append(source)
            advance()
    return new


def _loaded(sources: Iterable[ImageSource], on_bad_image: str) -> list[Image.Image]:
    """Return RGB images, without those that cannot be read if they are to be skipped."""
    found = []
    for source in sources:
        try:
            found.append(load_rgb(source))
        except BadImage:
            if on_bad_image == "fail":
                raise
    return found


def _row(kind: str, count: int, new: int, each: int, seconds: float) -> list[str]:
    return [kind, f"{count:,}", f"{new:,}", size(each * new), clock(seconds * new)]


def check_files(images: Iterable[ImageSource], on_bad_image: str) -> None:
    """Raise UserError with the first image whose file is missing, or print their number if they are to be skipped."""
    files = [os.path.split(source.name) for source in images if isinstance(source, FileImage)]
    there = {folder: _files_in(folder) for folder in {folder for folder, _ in files}}
    missing = [Path(folder, name) for folder, name in files if name not in there[folder]]
    if missing and on_bad_image == "fail":
        raise UserError(f"{missing[0]}: no such image, as {len(missing)} of {len(files)}; check data.root")
    if missing:
        print(f"{len(missing)} of {len(files)} image files are missing and will be skipped")


def _files_in(folder: str) -> set[str]:
    """Return the names of the files in a folder, in one pass: a network file system answers slowly for each file."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # no such folder, or a null character in its path
        return set()
