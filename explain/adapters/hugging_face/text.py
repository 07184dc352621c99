"""The words of a text in the pieces of any tokenizer of ``transformers``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from explain.adapters.words import between_markers
from explain.traced import Word

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "decoder_start_token_id")

MARKS = ("▁", "Ġ", "Ċ")  # what the first piece of a word begins with: a space or the end of a line


def special_ids(*configs: Any, tokenizer: Any = None) -> set[int]:
    """Return the ids of tokens that are no part of a text: those that configs name, and those of the tokenizer."""
    found: set[int] = set(getattr(tokenizer, "all_special_ids", ()) or ())
    for config in configs:
        for name in SPECIAL:
            value = getattr(config, name, None)
            found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return found


def is_special(ids: Tensor, special: Collection[int]) -> Tensor:
    """Return which tokens are special, bool of the same shape."""
    return torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype, device=ids.device))


def inside_markers(ids: Tensor, valid: Tensor, config: Any, tokenizer: Any) -> Tensor:
    """Return which tokens of BERT-like texts [CLS] … [SEP] are part of the text itself, bool [B, n]."""
    return between_markers(valid) & ~is_special(ids, special_ids(config, tokenizer=tokenizer))


def words_of(ids: Tensor, inside: Tensor, first: int, tokenizer: Any) -> list[list[Word]]:
    """Return the words of each sample, with the joint positions of their tokens.

    Args:
        ids: Token ids, [B, n].
        inside: Which tokens belong to words, bool [B, n].
        first: Joint position of the first token.
        tokenizer: A tokenizer of ``transformers``: WordPiece, sentencepiece, or byte-level or CLIP's BPE.
    """
    vocabulary = tokenizer.get_vocab()
    by_end = any(token.endswith("</w>") for token in vocabulary)  # CLIP marks the last piece of a word
    by_rest = any(token.startswith("##") for token in vocabulary)  # WordPiece marks all pieces but the first
    by_start = any(token[:1] in MARKS for token in vocabulary)  # without any mark, every token is a word

    def words(ids: Sequence[int], places: Sequence[int]) -> list[Word]:
        groups: list[list[int]] = []
        starts = True
        for place in places:
            piece = str(tokenizer.convert_ids_to_tokens(ids[place]))
            if not by_end:
                starts = not piece.startswith("##") if by_rest else piece[:1] in MARKS if by_start else True
            if not groups or starts or groups[-1][-1] != place - 1:
                groups.append([])
            groups[-1].append(place)
            starts = piece.endswith("</w>")
        return [
            (str(tokenizer.decode([ids[k] for k in group])).strip(), [first + k for k in group]) for group in groups
        ]

    return [words(row.tolist(), here.nonzero()[:, 0].tolist()) for row, here in zip(ids, inside, strict=True)]
