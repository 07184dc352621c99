"""Sub-word pieces and their scores merged into words."""

from collections.abc import Sequence


def merge_pieces(pieces: Sequence[str], is_end: Sequence[bool], scores: Sequence[float]) -> list[tuple[str, float]]:
    """Words with the sum of their pieces' scores, in order; a last word without an end counts as one.

    Args:
        pieces: The text of each sub-word piece, [N].
        is_end: Whether a word ends with the piece, [N].
        scores: A score each piece, [N].

    Raises:
        ValueError: the three differ in length.
    """
    if not len(pieces) == len(is_end) == len(scores):
        raise ValueError(f"{len(pieces)} pieces, {len(is_end)} end flags and {len(scores)} scores do not fit together")
    words: list[tuple[str, float]] = []
    word, total, open_word = "", 0.0, False
    for piece, end, score in zip(pieces, is_end, scores, strict=True):
        word, total, open_word = word + piece, total + float(score), not end
        if end:
            words.append((word, total))
            word, total = "", 0.0
    return [*words, (word, total)] if open_word else words
