"""The frozen features of texts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipmapper.config.schema import EncoderConfig
from clipmapper.console import progress
from clipmapper.encoder.load import FrozenClip
from clipmapper.encoder.released import restore
from clipmapper.features.at_once import images_at_once
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.filling import Filling
from clipmapper.features.folders import open_store
from clipmapper.features.hashes import text_key
from clipmapper.features.shard import as_keys
from clipmapper.features.store import FeatureStore, FrozenFeatures


def text_features(
    encoder: FrozenClip, config: EncoderConfig, texts: Sequence[str], cache: Path, device: torch.device
) -> FrozenFeatures:
    """Return all tokens of every distinct text at its true length, [n, D] each; those that the store lacks are encoded.

    The number of encoded texts that are longer than the encoder's context and were cut off is printed to stderr.

    Args:
        encoder: The frozen encoder, on ``device``.
        config: Precision of the features and batch size.
        texts: The texts.
        cache: The folder ``paths.cache``.
        device: Device of the encoder.

    Raises:
        UserError: The features are not finite, or the store is read-only and lacks a text.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # similar lengths in a batch need little padding
    keys = [text_key(text) for text in distinct]
    catalogue = open_store(cache, encoder, config, "texts")

    def fill() -> None:
        _fill(catalogue, encoder, config, keys, distinct)

    fill()
    empty = getattr(torch, config.feature_dtype), encoder.text.width
    store = FeatureStore(catalogue, as_keys(keys), fill, empty)
    content = hashlib.blake2b(b"".join(keys), digest_size=16).hexdigest()
    return FrozenFeatures(store, {text: k for k, text in enumerate(distinct)}, {}, content)


def _fill(
    catalogue: Catalogue, encoder: FrozenClip, config: EncoderConfig, keys: Sequence[bytes], texts: Sequence[str]
) -> None:
    there = catalogue.has(as_keys(keys))
    lacking = {key: text for key, text, found in zip(keys, texts, there.tolist(), strict=True) if not found}
    todo = list(lacking)
    if not todo:
        return
    restore(encoder, config)
    device = next(encoder.text.parameters()).device
    truncated, size = 0, images_at_once(config.batch_size, encoder.vision, device) * 4

    def encode(items: Mapping[bytes, str]) -> Iterator[tuple[bytes, Tensor]]:
        nonlocal truncated
        some = list(items)
        for start in range(0, len(some), size):
            batch = encoder.tokenize([items[key] for key in some[start : start + size]])
            truncated += batch.truncated
            with torch.inference_mode():
                features = encoder.text(batch.ids.to(device), batch.valid.to(device)).features.cpu()
            lengths = batch.valid.sum(1).tolist()
            yield from ((key, row[:n]) for key, row, n in zip(some[start:], features, lengths, strict=False))
            advance(len(lengths))

    with progress(len(todo), "encoding texts", "texts") as advance:
        filling = Filling(catalogue, encode, config.feature_dtype, advance, size)
        windows = (todo[k : k + filling.window] for k in range(0, len(todo), filling.window))
        filling.run({key: lacking[key] for key in window} for window in windows)
    if truncated:
        context = encoder.text.context_length
        print(f"{truncated} texts are longer than the encoder's {context} tokens and were cut off", file=sys.stderr)
