"""The BPE tokens of CLIP that can be generated, and the text of generated tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clipmapper.errors import UserError
from clipmapper.metrics.tokens import one_line

IGNORED = -100  # target of positions that have none: the default ignore_index of torch's cross-entropy


class CaptionVocabulary:
    """Token ids that can be generated, in ascending order: class c of the model's head is token ``ids[c]``.

    The end token is always included, and the start token never.

    Args:
        ids: Token ids.
        tokenizer: CLIP's tokenizer.
    """

    def __init__(self, ids: Iterable[int], tokenizer: Any):
        self.start, self.end = int(tokenizer.sot_token_id), int(tokenizer.eot_token_id)
        self.ids = tuple(sorted({*ids, self.end} - {self.start}))
        self._tokenizer = tokenizer
        self._classes = np.full(int(tokenizer.vocab_size), IGNORED, np.int64)
        self._classes[list(self.ids)] = np.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def classes(self, ids: np.ndarray) -> np.ndarray:
        """Return the class of each token id, ``IGNORED`` for a token that can't be generated."""
        return self._classes[ids]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids up to the first end token: one line, single spaces, no special tokens."""
        words = list(ids)
        if self.end in words:
            words = words[: words.index(self.end)]
        decoded = self._tokenizer.decode([i for i in words if i != self.start])
        return " ".join(one_line(decoded).split())


def build_vocabulary(kind: str, encoded: Iterable[Sequence[int]], tokenizer: Any) -> CaptionVocabulary:
    """Build the vocabulary of a captioning model.

    Args:
        kind: ``training`` for the tokens of the training captions, ``all`` for all tokens of the tokenizer.
        encoded: Token ids of the training captions.
        tokenizer: CLIP's tokenizer.

    Raises:
        UserError: No training caption contains a word.
    """
    if kind == "all":
        return CaptionVocabulary(range(int(tokenizer.vocab_size)), tokenizer)
    vocabulary = CaptionVocabulary({i for ids in encoded for i in ids}, tokenizer)
    if len(vocabulary) == 1:
        raise UserError("no training caption contains a word that CLIP's tokenizer knows; check the caption file")
    return vocabulary
