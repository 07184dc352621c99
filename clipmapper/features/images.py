"""The frozen features of images."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from clipmapper.config.schema import EncoderConfig
from clipmapper.console import Advance, progress
from clipmapper.data.images import BadImage, EncodedImage, load_rgb
from clipmapper.data.records import ImageSource
from clipmapper.encoder.load import FrozenClip
from clipmapper.encoder.released import restore
from clipmapper.errors import UserError
from clipmapper.features.at_once import images_at_once
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.filling import Filling, Waiting
from clipmapper.features.folders import HASHES, open_store
from clipmapper.features.hashes import Hashes, hash_of
from clipmapper.features.shard import as_keys
from clipmapper.features.store import FeatureStore, FrozenFeatures
from clipmapper.text import printable

READERS = min(8, os.cpu_count() or 2)  #: threads that read and decode images
WINDOW = 2048  #: images that a process reads before it encodes them; those of COCO have 330 MB
HELD = 1 << 29  #: most bytes of images that are kept until they are encoded; the others are read again
Item = TypeVar("Item")
Read = TypeVar("Read")


def image_features(
    encoder: FrozenClip,
    config: EncoderConfig,
    images: Mapping[int, ImageSource],
    cache: Path,
    on_bad_image: str,
    device: torch.device,
) -> FrozenFeatures:
    """Return the class and patch tokens of every image, [1 + P, D] each; those that the store lacks are encoded.

    Args:
        encoder: The frozen encoder, on ``device``.
        config: Precision of the features and batch size.
        images: The images by image id.
        cache: The folder ``paths.cache``.
        on_bad_image: What to do with an unreadable image: "fail", or "skip" to name it on stderr and leave it without
            features.
        device: Device of the encoder.

    Raises:
        UserError: An image is unreadable and ``on_bad_image`` is "fail", the features are not finite, or the store is
            read-only and lacks an image.
    """
    catalogue = open_store(cache, encoder, config, "images")
    work = _Images(encoder, config, catalogue, Hashes(cache / HASHES), images, on_bad_image == "fail")
    work.fill()
    work.hashes.forget_all()
    good = [i for i in work.ids if i not in work.missing]
    empty = getattr(torch, config.feature_dtype), encoder.vision.width
    store = FeatureStore(catalogue, as_keys([work.keys[i] for i in good]), work.fill, empty)
    content = hashlib.blake2b(digest_size=16)
    for i in work.ids:
        content.update(f"{i} {'missing' if i in work.missing else work.keys[i].hex()}\n".encode())
    return FrozenFeatures(store, {i: k for k, i in enumerate(good)}, work.missing, content.hexdigest())


class _Images:
    """The images of a dataset, and the work on those that the store lacks."""

    def __init__(
        self,
        encoder: FrozenClip,
        config: EncoderConfig,
        catalogue: Catalogue,
        hashes: Hashes,
        images: Mapping[int, ImageSource],
        fails: bool,
    ):
        self._encoder, self._config, self._catalogue, self.hashes = encoder, config, catalogue, hashes
        self._images, self._fails = images, fails
        self.ids = sorted(images)
        self.keys: dict[int, bytes] = {}  #: content hashes of the images that could be read
        self.missing: dict[int, str] = {}  #: names of the others
        self._bad: dict[bytes, str] = {}  # contents that cannot be decoded, with what is wrong
        self._held: dict[bytes, bytes] = {}  # contents that were read and are to be encoded

    def fill(self) -> None:
        """Encode the images that the store lacks, in the order of their ids."""
        for i in self.ids:
            if i not in self.keys and (key := self.hashes.known(self._images[i])) is not None:
                self.keys[i] = key
        known = list(self.keys)
        there = self._catalogue.has(as_keys([self.keys[i] for i in known]))
        done = {i for i, found in zip(known, there.tolist(), strict=True) if found}
        todo = [i for i in self.ids if i not in done and i not in self.missing]
        if not todo:
            return
        restore(self._encoder, self._config)
        size = images_at_once(self._config.batch_size, self._encoder.vision, self._device)
        with ThreadPoolExecutor(READERS) as readers, progress(len(todo), "encoding images", "images") as advance:

            def encode(items: Mapping[bytes, ImageSource]) -> Iterator[tuple[bytes, Tensor]]:
                return self._encoded(items, size, readers, advance)

            filling = Filling(self._catalogue, encode, self._config.feature_dtype, advance, size)
            window = min(filling.window, -(-WINDOW // size) * size)
            try:
                with closing(self._windows(todo, window, readers, advance)) as windows:
                    filling.run(windows)
            finally:
                readers.shutdown(cancel_futures=True)  # they add to the hashes
                self.hashes.save()
        for i in todo:
            if i not in self.missing and (reason := self._bad.get(self.keys[i])) is not None:
                self._skip(i, f"{self._images[i].name}{reason}")

    def _windows(
        self, ids: Sequence[int], size: int, readers: ThreadPoolExecutor, advance: Advance
    ) -> Generator[dict[bytes, ImageSource]]:
        """Yield the images in parts, by content hash; of files without a remembered hash, those that no other reads."""
        waiting = Waiting(advance)
        while ids:
            left: dict[int, str] = {}
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                unknown = {i: self._images[i] for i in part if i not in self.keys}
                with self.hashes.claimed(unknown) as others:
                    left |= others
                    self._read([i for i in unknown if i not in others], readers)
                    window: dict[bytes, ImageSource] = {}
                    for i in part:
                        if i in self.keys:
                            window.setdefault(self.keys[i], self._images[i])
                    advance(sum(i not in others for i in part) - len(window))  # unreadable ones, and copies of others
                    yield window
                    self._held.clear()
            if len(left) == len(ids):
                waiting.pause(next(iter(left.values())), len(left), "reading")
            ids = list(left)

    def _read(self, ids: Sequence[int], readers: ThreadPoolExecutor) -> None:
        """Read images for their hashes, and keep their contents as far as there is room."""
        for i in ids:
            if (key := self.hashes.known(self._images[i])) is not None:  # another process has read it
                self.keys[i] = key
        unknown, room = [i for i in ids if i not in self.keys], HELD
        for i, found in zip(unknown, readers.map(self._content, unknown), strict=True):
            if isinstance(found, BadImage):
                if self._fails:
                    raise found
                self._skip(i, str(found))
                continue
            self.keys[i], content = found
            if room >= len(content):
                room -= len(content)
                self._held[self.keys[i]] = content
        self.hashes.save()

    def _content(self, i: int) -> tuple[bytes, bytes] | BadImage:
        try:
            return self.hashes.content(self._images[i])
        except BadImage as error:
            return error

    def _skip(self, i: int, reason: str) -> None:
        self.missing[i] = self._images[i].name
        print(f"skipped: {printable(reason)}", file=sys.stderr)

    def _encoded(
        self, items: Mapping[bytes, ImageSource], size: int, readers: ThreadPoolExecutor, advance: Advance
    ) -> Iterator[tuple[bytes, Tensor]]:
        keys = list(items)
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        for batch, read in read_ahead(batches, lambda some: readers.map(self._pixels, some, map(items.get, some))):
            good: list[tuple[bytes, Tensor]] = []
            for key, pixels in zip(batch, read, strict=True):
                if isinstance(pixels, BadImage):
                    if self._fails:
                        raise pixels
                    self._bad[key] = str(pixels).removeprefix(items[key].name)
                else:
                    good.append((key, pixels))
            yield from zip((key for key, _ in good), self._vision([pixels for _, pixels in good]), strict=True)
            advance(len(batch))

    def _pixels(self, key: bytes, source: ImageSource) -> Tensor | BadImage:
        try:
            held = self._held.pop(key, None)
            content = source.read() if held is None else held
            if held is None and hash_of(content) != key:
                self.hashes.forget(source)
                raise UserError(f"{source.name}: has changed since the command began; run it again")
            image: Image.Image = load_rgb(EncodedImage(source.name, lambda: content))
        except BadImage as error:
            return error
        return self._encoder.pixels([image])[0]

    @property
    def _device(self) -> torch.device:
        return next(self._encoder.vision.parameters()).device

    @torch.inference_mode()
    def _vision(self, pixels: list[Tensor]) -> Iterable[Tensor]:
        return self._encoder.vision(torch.stack(pixels).to(self._device)).features.cpu() if pixels else ()


def read_ahead(
    batches: Sequence[Sequence[Item]], start: Callable[[Sequence[Item]], Iterable[Read]]
) -> Iterator[tuple[Sequence[Item], list[Read]]]:
    """Yield each batch with what was read of it, while that of the next one is read.

    Args:
        batches: The batches.
        start: Starts to read a batch, and returns an iterable that waits for it.
    """
    reading = start(batches[0]) if batches else ()
    for number, batch in enumerate(batches):
        read = list(reading)
        reading = start(batches[number + 1]) if number + 1 < len(batches) else ()
        yield batch, read
