"""The words of a BERT-like text, and the tokens that belong to them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from explain.traced import Word


def between_markers(valid: Tensor) -> Tensor:
    """Return which tokens are part of the text itself, bool [B, n].

    These are the valid tokens except the first and the last one, which mark the ends of the text ([CLS] and [SEP]).
    """
    inside = valid.clone()
    inside[:, 0] = False
    inside.scatter_(1, (valid.sum(1, keepdim=True) - 1).clamp(min=0), False)
    return inside


def wordpiece_words(ids: Tensor, inside: Tensor, tokenizer: Any) -> list[list[Word]]:
    """Return the words of each sample, with the positions of their tokens in the text.

    Args:
        ids: Token ids, [B, n].
        inside: Which tokens belong to words, bool [B, n].
        tokenizer: A WordPiece tokenizer of ``transformers``, in which a piece that continues a word begins with ##.
    """
    texts = []
    for sample, row in enumerate(ids.tolist()):
        words: list[tuple[str, list[int]]] = []
        for place in inside[sample].nonzero()[:, 0].tolist():
            piece = tokenizer.convert_ids_to_tokens(row[place])
            if piece.startswith("##") and words:
                words[-1] = (words[-1][0] + piece.removeprefix("##"), [*words[-1][1], place])
            else:
                words.append((piece, [place]))
        texts.append(list[Word](words))
    return texts
