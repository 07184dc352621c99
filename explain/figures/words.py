"""Merging of sub-word pieces and their scores into words."""

from collections.abc import Sequence


def merge_pieces(pieces: Sequence[str], is_end: Sequence[bool], scores: Sequence[float]) -> list[tuple[str, float]]:
    """Return the words, each with the sum of its pieces' scores, in order.

    Pieces at the end that no end flag follows form a last word.

    Args:
        pieces: Text of each sub-word piece, [N].
        is_end: Whether a word ends with the piece, [N].
        scores: Score of each piece, [N].

    Raises:
        ValueError: The three differ in length.
    """
    if not len(pieces) == len(is_end) == len(scores):
        raise ValueError(
            f"{len(pieces)} pieces, {len(is_end)} end flags and {len(scores)} scores: the numbers must be equal"
        )
    words: list[tuple[str, float]] = []
    word, total, open_word = "", 0.0, False
    for piece, end, score in zip(pieces, is_end, scores, strict=True):
        word, total, open_word = word + piece, total + float(score), not end
        if end:
            words.append((word, total))
            word, total = "", 0.0
    return [*words, (word, total)] if open_word else words
