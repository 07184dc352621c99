"""CLIP's byte-pair pieces merged into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from explain.figures.words import merge_pieces
from explain.traced import Word

END = "</w>"
# Pieces that are a word of their own: the start and end of a text, in both spellings.
MARKERS = frozenset({"<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>"})


def merge_clip_pieces(pieces: Sequence[str], scores: Sequence[float]) -> list[tuple[str, float]]:
    """:func:`~explain.figures.words.merge_pieces` for CLIP's pieces, such as ``what</w>`` or ``circ``, ``le</w>``.

    Start and end marks stay words of their own. CLIP spells bytes as printable characters; they are read back.
    """
    marked = [piece in MARKERS for piece in pieces]
    # A word cut off by a mark ends before it.
    cut = [*marked, False][1:]
    is_end = [piece.endswith(END) or mark or before for piece, mark, before in zip(pieces, marked, cut, strict=True)]
    merged = merge_pieces([piece.removesuffix(END) for piece in pieces], is_end, scores)
    return [(_decoded(word), score) for word, score in merged]


def clip_words(ids: Sequence[int], tokenizer: Any, first: int) -> list[Word]:
    """The words of a text and the positions of their sub-words.

    Args:
        ids: Token ids of the text, without start and end token.
        tokenizer: CLIP's.
        first: The position of the first of them.
    """
    words: list[Word] = []
    start = 0
    for place, number in enumerate(ids, 1):
        if tokenizer.decoder[number].endswith(END) or place == len(ids):
            word = "".join(tokenizer.decoder[each].removesuffix(END) for each in ids[start:place])
            words.append((_decoded(word), range(first + start, first + place)))
            start = place
    return words


def _decoded(word: str) -> str:
    """The text that byte characters stand for; a word that is no such spelling stays as it is."""
    try:
        return bytes(BYTES[character] for character in word).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return word


def _byte_characters() -> dict[str, int]:
    """Byte-level BPE's alphabet (Radford et al., 2019): printable Latin-1 is itself, other bytes follow from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = _byte_characters()
