"""The token ids of captions, which are kept: a second start maps them into memory instead of tokenizing again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clipmapper.console import progress
from clipmapper.encoder.load import FrozenClip
from clipmapper.storage.kept import kept_of

_AT_ONCE = 1000  # captions tokenized in one call
#: ``cut`` has the number of truncated captions of each call, in its first row.
_SCHEMA = pa.schema([("ids", pa.list_(pa.int32())), ("cut", pa.int32())])


class CaptionTokens:
    """Token ids of captions, from the start to the end token.

    Args:
        table: Its column ``ids`` has the token ids of each caption.
    """

    def __init__(self, table: pa.Table):
        whole = table.combine_chunks()
        lists = whole["ids"].chunk(0) if len(whole) else pa.array([], _SCHEMA.field("ids").type)
        self._ids: np.ndarray = lists.values.to_numpy()
        self._starts: np.ndarray = lists.offsets.to_numpy()
        #: Number of captions that were cut off at the encoder's context length.
        self.truncated: int = int(whole["cut"].to_numpy().sum())

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the token ids of a caption, int32 [n]."""
        return self._ids[self._starts[number] : self._starts[number + 1]]

    def occurring(self, numbers: np.ndarray) -> list[int]:
        """Return the distinct token ids of the captions with these numbers."""
        chosen = np.zeros(len(self), bool)
        chosen[numbers] = True
        found: list[int] = np.unique(self._ids[np.repeat(chosen, np.diff(self._starts))]).tolist()
        return found


def caption_tokens(encoder: FrozenClip, captions: Sequence[str], cache: Path) -> CaptionTokens:
    """Tokenize captions, or read what was kept of them.

    Args:
        encoder: The encoder, whose fingerprint stands for its tokenizer.
        captions: The captions.
        cache: The folder ``paths.cache``.
    """
    content = hashlib.blake2b(encoder.fingerprint().encode(), digest_size=16)
    for text in captions:
        content.update(text.encode("utf-8", "surrogatepass") + b"\0")

    def tokenized() -> pa.Table:
        return pa.Table.from_batches(_tokenized(encoder, captions), _SCHEMA).combine_chunks()

    return CaptionTokens(kept_of(cache, "tokens", content.hexdigest(), tokenized))


def _tokenized(encoder: FrozenClip, captions: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with progress(len(captions), "tokenizing captions", "captions") as advance:
        for start in range(0, len(captions), _AT_ONCE):
            batch = encoder.tokenize(list(captions[start : start + _AT_ONCE]))
            starts = np.concatenate([[0], batch.valid.sum(1).cumsum(0).numpy()])
            ids = batch.ids[batch.valid].numpy()
            lists = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(ids, pa.int32()))
            cut = np.zeros(len(lists), np.int32)
            cut[0] = batch.truncated
            yield pa.record_batch([lists, pa.array(cut)], schema=_SCHEMA)
            advance(len(lists))
