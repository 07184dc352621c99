"""Frozen features of the images and texts of a dataset, read from the cache or computed.

The cache key depends on the encoder (name, every weight, preprocessing), the precision and the data (path, size and
modification time of every image; every text). Changed content gets a new folder, so a store is never outdated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clipmapper.config.schema import Config, EncoderConfig
from clipmapper.console import progress
from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.data.records import ImageSource
from clipmapper.encoder.load import FrozenClip, load_encoder, use
from clipmapper.errors import UserError
from clipmapper.nn import Tokens
from clipmapper.process.partial import filled, locked
from clipmapper.text import printable


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of images or texts."""

    store: FeatureStore
    #: Number of each item in the store, by image id or text.
    place: dict[object, int]
    #: Names of the images that could not be read, by image id.
    missing: dict[object, str]


def image_features(
    encoder: FrozenClip,
    config: EncoderConfig,
    images: Mapping[int, ImageSource],
    cache: Path,
    on_bad_image: str,
    device: torch.device,
) -> FrozenFeatures:
    """Return the class and patch tokens of every image, [1 + P, D] each, from the cache if possible.

    Args:
        encoder: The frozen encoder.
        config: Precision of the features and batch size.
        images: The images by image id.
        cache: Folder of the feature stores.
        on_bad_image: What to do with an unreadable image: "fail", or "skip" to name it on stderr and leave it without
            features.
        device: Device of the encoder.

    Raises:
        UserError: An image is unreadable and ``on_bad_image`` is "fail".
    """
    ids = sorted(images)
    identity = [f"{i} {_identity(images[i])}" for i in ids]
    folder = cache / f"images-{_key(encoder, config, identity)}"
    store = open_or_none(folder)
    if store is None:
        with ThreadPoolExecutor(2) as readers:
            batches = _encoded_images(encoder, config, [images[i] for i in ids], on_bad_image, device, readers)
            write_store(folder, batches, config.feature_dtype)
        store = FeatureStore(folder)
    unread = [i for i, length in zip(ids, store.lengths, strict=True) if length == 0]
    if unread and on_bad_image == "fail":  # the store was written with on_bad_image="skip"
        load_rgb(images[unread[0]])
    return FrozenFeatures(store, {i: k for k, i in enumerate(ids)}, {i: images[i].name for i in unread})


def text_features(
    encoder: FrozenClip, config: EncoderConfig, texts: Sequence[str], cache: Path, device: torch.device
) -> FrozenFeatures:
    """Return all tokens of every distinct text at its true length, [n, D] each, from the cache if possible.

    The number of texts that are longer than the encoder's context and were cut off is printed to stderr.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # similar lengths in a batch need little padding
    folder = cache / f"texts-{_key(encoder, config, distinct)}"
    store = open_or_none(folder)
    if store is None:
        write_store(folder, _encoded_texts(encoder, config, distinct, device), config.feature_dtype)
        store = FeatureStore(folder)
    return FrozenFeatures(store, {text: k for k, text in enumerate(distinct)}, {})


def _key(encoder: FrozenClip, config: EncoderConfig, identity: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in (encoder.fingerprint(), config.feature_dtype, *identity):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _identity(source: ImageSource) -> str:
    """Identify an image in the cache key: a file by its path, size and modification time, others by their content."""
    if isinstance(source, FileImage):
        try:
            status = source.path.stat()
        except OSError:
            return f"{source.name} missing"
        return f"{source.path.resolve()} {status.st_size} {status.st_mtime_ns}"
    try:
        return f"{source.name} {hashlib.blake2b(source.read(), digest_size=16).hexdigest()}"
    except BadImage:
        return f"{source.name} missing"


def _encoded_images(
    encoder: FrozenClip,
    config: EncoderConfig,
    sources: list[ImageSource],
    on_bad_image: str,
    device: torch.device,
    readers: ThreadPoolExecutor,
) -> Iterator[list[np.ndarray]]:
    def read(source: ImageSource) -> torch.Tensor | None:
        try:
            image: Image.Image = load_rgb(source)
        except BadImage as error:
            if on_bad_image == "fail":
                raise
            print(f"skipped: {printable(str(error))}", file=sys.stderr)
            return None
        return encoder.pixels([image])[0]

    empty = np.empty((0, encoder.vision.width), np.float32)
    for start in _progress("images", len(sources), config.batch_size):
        pixels = list(readers.map(read, sources[start : start + config.batch_size]))
        good = [p for p in pixels if p is not None]
        features = iter(_vision(encoder, torch.stack(good).to(device)) if good else ())
        yield [empty if p is None else next(features) for p in pixels]


@torch.inference_mode()
def _vision(encoder: FrozenClip, pixels: torch.Tensor) -> np.ndarray:
    return encoder.vision(pixels).features.float().cpu().numpy()


@torch.inference_mode()
def _encoded_texts(
    encoder: FrozenClip, config: EncoderConfig, texts: list[str], device: torch.device
) -> Iterator[list[np.ndarray]]:
    truncated, size = 0, config.batch_size * 4
    for start in _progress("texts", len(texts), size):
        batch = encoder.tokenize(texts[start : start + size])
        truncated += batch.truncated
        tokens = encoder.text(batch.ids.to(device), batch.valid.to(device))
        lengths = batch.valid.sum(1).tolist()
        features = tokens.features.float().cpu().numpy()
        yield [row[:length] for row, length in zip(features, lengths, strict=True)]
    if truncated:
        context = encoder.text.context_length
        print(f"{truncated} texts are longer than the encoder's {context} tokens and were cut off", file=sys.stderr)


def _progress(unit: str, count: int, step: int) -> Iterator[int]:
    with progress(count, f"encoding {unit}", unit) as advance:
        for start in range(0, count, step):
            yield start
            advance(min(step, count - start))


def ready_encoder(config: Config) -> tuple[FrozenClip, torch.device, Path]:
    """Load the encoder of the config and move it to the device of the config's trainer.

    Returns:
        The frozen encoder, its device, and the folder of its cached features.

    Raises:
        UserError: The encoder cannot be loaded (see :func:`~clipmapper.encoder.load.load_encoder`), or there is no such
            device.
    """
    device = use(config)
    encoder = load_encoder(config.encoder)
    return encoder.to(device), device, Path(config.paths.cache) / f"{config.data.name}-{config.encoder.model}"


_CHUNK = 1 << 24


class DamagedStore(Exception):
    """Error for a folder that does not contain a complete feature store."""


class FeatureStore:
    """A folder with the features of many items, as rows [total, D].

    Item i has the rows ``offsets[i]:offsets[i + 1]``; an item without rows is missing.
    """

    def __init__(self, folder: Path):
        """Open a store and verify its checksums.

        Raises:
            DamagedStore: The folder does not contain a complete store.
        """
        try:
            written = json.loads((folder / "meta.json").read_text())
            meta = written["meta"]
            found = {"rows": _checksum(folder / "rows.bin"), "offsets": _checksum(folder / "offsets.npy")}
            if written["checksums"] != {**found, "meta": _checksum_of(meta)}:
                raise DamagedStore(f"{folder} is not what was written")
            #: Checksum of the features of all items.
            self.checksum = f"{found['rows']:08x}{found['offsets']:08x}"
            rows, self.offsets = folder / "rows.bin", np.load(folder / "offsets.npy")
            shape = (int(self.offsets[-1]), int(meta["width"]))
            self._rows = (
                np.memmap(rows, meta["dtype"], "r", shape=shape) if shape[0] else np.empty(shape, meta["dtype"])
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DamagedStore(f"{folder}: {error}") from error

    @property
    def lengths(self) -> np.ndarray:
        """Number of rows of every item, int64 [items]."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """Number of channels D of a row."""
        return int(self._rows.shape[1])

    def gather(self, items: np.ndarray) -> Tokens:
        """Return the tokens of ``items`` [B] as a padded float32 batch."""
        starts, lengths = self.offsets[items], self.offsets[items + 1] - self.offsets[items]
        steps = np.arange(int(lengths.max()))
        valid = steps < lengths[:, None]
        rows = np.where(valid, starts[:, None] + steps, 0)
        features = torch.from_numpy(np.asarray(self._rows[rows.ravel()], np.float32)).unflatten(0, rows.shape)
        mask = torch.from_numpy(valid)
        if not valid.all():
            features = features * mask[..., None]
        return Tokens(features, mask, torch.from_numpy(steps).expand(rows.shape))


def write_store(folder: Path, batches: Iterable[list[np.ndarray]], dtype: str) -> None:
    """Write batches of items, [rows, D] each, as a feature store.

    The store is written to a temporary folder, which is renamed when all items are written. A complete store that
    another process has written meanwhile is kept.

    Raises:
        UserError: A value is NaN or infinite, or too large for ``dtype``.
    """
    with filled(folder) as half:
        offsets, width = [0], 0
        with (half / "rows.bin").open("wb") as rows:
            for batch in batches:
                for item in batch:
                    offsets.append(offsets[-1] + len(item))
                    width = item.shape[1]
                    stored = np.ascontiguousarray(item, dtype)
                    if not np.isfinite(stored).all():
                        raise UserError(
                            f"the encoder's features are NaN or infinite in {dtype}; "
                            "give encoder.feature_dtype=float32, or other encoder.weights"
                        )
                    rows.write(stored.data)
        np.save(half / "offsets.npy", np.array(offsets, np.int64))
        meta = {"dtype": dtype, "width": width}
        checksums = {"rows": _checksum(half / "rows.bin"), "offsets": _checksum(half / "offsets.npy")}
        written = {"meta": meta, "checksums": {**checksums, "meta": _checksum_of(meta)}}
        (half / "meta.json").write_text(json.dumps(written))
        with locked(folder.parent):
            if open_or_none(folder, report=False) is None:  # otherwise another process was faster
                shutil.rmtree(folder, ignore_errors=True)
                half.rename(folder)


def open_or_none(folder: Path, report: bool = True) -> FeatureStore | None:
    """Return the store in a folder, or None if it does not exist or is damaged, which is printed with ``report``."""
    if not folder.exists():
        return None
    try:
        return FeatureStore(folder)
    except DamagedStore as error:
        if report:
            print(f"feature cache is damaged and is computed again: {error}", file=sys.stderr)
        return None


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _checksum_of(meta: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
