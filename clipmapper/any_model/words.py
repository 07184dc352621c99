"""Words that a model of ``transformers`` or open_clip cannot know, counted in the texts of the samples.

A word is unknown if its tokenizer reads it as the unknown token, or if a row of the token table for it was never
trained. The second can only be told of the embedded encoder, whose other rows are seeded numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from clipmapper.any_model.load import LoadedModel
from clipmapper.encoder.shapes_tiny import seeded_token_table
from clipmapper.explaining.familiarity import WordCount

_TOKENS = 49408  # of CLIP's vocabulary


def count_words(loaded: LoadedModel, texts: Iterable[str | None]) -> WordCount | None:
    """Count the words of texts that a model does not know; None if nothing can be told about its words."""
    encode, unknown = _encoder(loaded.processor)
    unknown |= _untrained(loaded.model)
    given = [text for text in texts if text]
    if encode is None or not unknown or not given:
        return None
    return WordCount.count(given, lambda word: unknown.isdisjoint(encode(word)), "are unknown to the model")


def _encoder(processor: Any) -> tuple[Callable[[str], list[int]] | None, set[int]]:
    """Return the function that gives the token ids of a word, if there is one, and the id of the unknown token."""
    if isinstance(processor, tuple):  # of open_clip: the preprocessing and the tokenizer
        return processor[1].encode, set()
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        return None, set()
    unknown = getattr(tokenizer, "unk_token_id", None)
    known = getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "pad_token_id", None)  # CLIP's are the same
    return (
        lambda word: list(tokenizer(word, add_special_tokens=False)["input_ids"]),
        set() if unknown is None or unknown in known else {int(unknown)},
    )


def _untrained(model: nn.Module) -> set[int]:
    """Return the tokens whose rows of the token table are those from before the training of the embedded encoder."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == _TOKENS:
            table = module.weight.detach().float().cpu()
            same = (table == seeded_token_table(_TOKENS, table.shape[1])).all(1)
            return set(torch.nonzero(same).flatten().tolist())
    return set()
