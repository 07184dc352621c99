"""Which of CLIP's BPE tokens a caption can be made of, and the text of what was generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clipmapper.errors import UserError
from clipmapper.metrics.tokens import one_line

IGNORED = -100  # the target of a place that has none, as torch's cross-entropy takes it


class CaptionVocabulary:
    """Token ids that can be generated, ascending: class c of the model's head is token ``ids[c]``.

    The end token is among them, the start token is not.
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
        """The class of each token id, ``IGNORED`` where it can't be generated."""
        return self._classes[ids]

    def text(self, ids: Sequence[int]) -> str:
        """The caption of token ids, up to the first end token: one line, single spaces, no special tokens."""
        words = list(ids)
        if self.end in words:
            words = words[: words.index(self.end)]
        decoded = self._tokenizer.decode([i for i in words if i != self.start])
        return " ".join(one_line(decoded).split())


def build_vocabulary(kind: str, encoded: Iterable[Sequence[int]], tokenizer: Any) -> CaptionVocabulary:
    """``training``: the tokens of these captions; ``all``: the tokenizer's.

    Raises ``UserError`` where no caption holds a word.
    """
    if kind == "all":
        return CaptionVocabulary(range(int(tokenizer.vocab_size)), tokenizer)
    vocabulary = CaptionVocabulary({i for ids in encoded for i in ids}, tokenizer)
    if len(vocabulary) == 1:
        raise UserError("no training caption holds a word that CLIP's tokenizer knows; check the caption file")
    return vocabulary
