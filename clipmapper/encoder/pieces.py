"""Merging of CLIP's byte-pair pieces into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from explain.figures.words import merge_pieces
from explain.traced import Word

END = "</w>"
# Pieces that are separate words: the marks of the start and end of a text, in both spellings.
MARKERS = frozenset({"<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>"})


def merge_clip_pieces(pieces: Sequence[str], scores: Sequence[float]) -> list[tuple[str, float]]:
    """Merge CLIP's pieces, such as ``circ`` and ``le</w>``, into words.

    The marks of the start and end of a text stay separate words. CLIP spells bytes as printable characters, which are
    converted back. The scores are merged by :func:`~explain.figures.words.merge_pieces`.

    Args:
        pieces: The pieces of a text.
        scores: One score for every piece.

    Returns:
        Each word with the sum of its scores.
    """
    marked = [piece in MARKERS for piece in pieces]
    # A word that is cut off by a mark ends before the mark.
    cut = [*marked, False][1:]
    is_end = [piece.endswith(END) or mark or before for piece, mark, before in zip(pieces, marked, cut, strict=True)]
    merged = merge_pieces([piece.removesuffix(END) for piece in pieces], is_end, scores)
    return [(_decode(word), score) for word, score in merged]


def spelled(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Return the tokens of a text as CLIP's BPE spells them.

    Args:
        ids: Token ids.
        tokenizer: CLIP's tokenizer, or a :class:`~clipmapper.encoder.hub_tokenizer.HubTokenizer`.
    """
    if hasattr(tokenizer, "pieces"):
        pieces: list[str] = tokenizer.pieces(ids)
        return pieces
    return [tokenizer.decoder[number] for number in ids]


def clip_words(ids: Sequence[int], tokenizer: Any, first: int) -> list[Word]:
    """Return the words of a text with the positions of their sub-words.

    Args:
        ids: Token ids of the text, without start and end tokens.
        tokenizer: The encoder's tokenizer.
        first: Position of the first token of ``ids``.
    """
    words: list[Word] = []
    start, pieces = 0, spelled(ids, tokenizer)
    for place, piece in enumerate(pieces, 1):
        if piece.endswith(END) or place == len(ids):
            word = "".join(each.removesuffix(END) for each in pieces[start:place])
            words.append((_decode(word), range(first + start, first + place)))
            start = place
    return words


def _decode(word: str) -> str:
    """Convert byte characters back to text; a word that is not spelled with byte characters is returned unchanged."""
    try:
        return bytes(BYTES[character] for character in word).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return word


def _byte_characters() -> dict[str, int]:
    """Return the byte of every character in the alphabet of byte-level BPE (Radford et al. 2019).

    Printable Latin-1 characters stand for themselves; the characters from U+0100 stand for the other bytes.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = _byte_characters()
CHARACTERS = {byte: character for character, byte in BYTES.items()}
