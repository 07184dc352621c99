"""Tokenizers of ``transformers`` in open_clip models, with sub-words spelled as those of CLIP's BPE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipmapper.encoder.pieces import BYTES, CHARACTERS, END

_STARTS = ("▁", "Ġ")  # a space before a word, in sentencepiece and in byte-level BPE
_REST = "##"  # before each piece of a word but the first, in WordPiece
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte of a character that sentencepiece does not know


class HubTokenizer:
    """A tokenizer whose texts always fill the context of the text encoder, or end at their end token.

    It has the attributes of CLIP's BPE that this project uses: :meth:`encode`, ``decoder`` and ``byte_decoder``.

    Args:
        tokenizer: open_clip's ``HFTokenizer``.
        fills_context: Whether the padding is part of a text.
    """

    byte_decoder = BYTES

    def __init__(self, tokenizer: Any, fills_context: bool):
        self._whole, self._tokenizer = tokenizer, tokenizer.tokenizer
        self._fills_context = fills_context
        self.pad = int(self._tokenizer.pad_token_id)
        #: Ids of tokens that are no part of a text.
        self.special: frozenset[int] = frozenset(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        vocabulary = self._tokenizer.get_vocab()
        self._by_rest = any(piece.startswith(_REST) for piece in vocabulary)
        self._byte_level = any(piece.startswith("Ġ") for piece in vocabulary)
        #: The bytes of each sub-word as printable characters, without a mark for the end of a word.
        self.decoder: Mapping[int, str] = {number: self._spelled(piece) for piece, number in vocabulary.items()}

    def encode(self, text: str) -> list[int]:
        """Return the sub-words of a text, without start, end and padding."""
        return [number for number in self._ids([text])[0] if number not in self.special]

    def batch(self, texts: list[str]) -> tuple[Tensor, Tensor, int]:
        """Return token ids [B, N], which of them are valid, bool [B, N], and how many texts were cut off."""
        ids: Tensor = self._whole(texts)
        truncated = sum(len(each) > ids.shape[1] for each in self._ids(texts))
        if self._fills_context:
            return ids, torch.ones_like(ids, dtype=torch.bool), truncated
        lengths = (ids != self.pad).sum(1)
        longest = int(lengths.max())
        return ids[:, :longest], torch.arange(longest) < lengths[:, None], truncated

    def is_sub_word(self, ids: Tensor) -> Tensor:
        """Return which tokens are sub-words of the text, bool of the same shape."""
        return ~torch.isin(ids, torch.tensor(sorted(self.special), dtype=ids.dtype, device=ids.device))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of a text as CLIP's BPE spells them, with ``</w>`` at the end of each word."""
        written = [str(piece) for piece in self._tokenizer.convert_ids_to_tokens(list(ids))]
        starts = [self._starts(piece) or number in self.special for piece, number in zip(written, ids, strict=True)]
        found = []
        for place, number in enumerate(ids):
            if number in self.special:
                found.append(written[place])
            else:
                found.append(self.decoder[number] + (END if place + 1 == len(ids) or starts[place + 1] else ""))
        return found

    def _ids(self, texts: list[str]) -> list[list[int]]:
        cleaned = [self._whole.clean_fn(text) for text in texts]
        found: list[list[int]] = self._tokenizer(cleaned, verbose=False).input_ids
        return found

    def _starts(self, piece: str) -> bool:
        return not piece.startswith(_REST) if self._by_rest else piece[:1] in _STARTS

    def _spelled(self, piece: str) -> str:
        return "".join(CHARACTERS[byte] for byte in self._bytes(piece))

    def _bytes(self, piece: str) -> Iterator[int]:
        if (byte := _BYTE.fullmatch(piece)) is not None:
            yield int(byte[1], 16)
        elif self._byte_level:
            yield from (BYTES[character] for character in piece.removeprefix("Ġ") if character in BYTES)
        else:
            yield from piece.removeprefix("▁").removeprefix(_REST if self._by_rest else "▁").encode()
