"""Explanations of captions, word by word."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import Word, sentence_relevance, split_words, sub_word_weights
from clipmapper.tasks.caption.tracing import TracedCaptions, trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch
from clipmapper.tasks.caption.vocabulary import IGNORED
from clipmapper.training.batches import split_evenly
from explain import Explainer, Needs, TraceError


@dataclass(frozen=True, eq=False)
class ExplainedWords:
    """Scores [W, N] of all words of a batch's captions, caption after caption, by explainer.

    A word's scores are the mean of those of its sub-words, so that Eq. 20 over words is Eq. 20 over sub-words.
    ``words`` are those of each caption.
    """

    traced: TracedCaptions
    words: tuple[list[Word], ...]
    scores: Mapping[str, Tensor]


def explain_words(
    model: CLIPMapperCaption,
    batch: CaptionedBatch,
    explainers: Mapping[str, Explainer],
    against: int | None = None,
    sample_ids: Sequence[int | str] | None = None,
    checkpoint: Path | None = None,
) -> ExplainedWords:
    """Compute the scores of every explainer from one trace of the batch, whose captions all have words.

    Args:
        model: In evaluation mode.
        batch: B pictures with their captions.
        explainers: By name.
        against: A class of the model's head, whose logit is taken off that of each word (:func:`contrast_class`).
        sample_ids: Names of the captions, for what is drawn at random; by default the images' ids.
        checkpoint: Where the model came from, for the error; None names the pictures.

    Raises:
        UserError: the trace holds NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values())
    names = batch.ids if sample_ids is None else sample_ids
    words = tuple(split_words(caption, model.encoder.tokenizer) for caption in batch.captions)
    try:
        traced = trace_captions(model, batch.pixels, batch.captions, needs, names, against, batch.ids)
        scores = {name: _of_words(each(traced.trace, traced.rows), words) for name, each in explainers.items()}
    except TraceError as error:
        what = checkpoint or f"captions of images {batch.ids[0]} to {batch.ids[-1]}"
        raise UserError(f"{what} can't be explained: {error}") from error
    return ExplainedWords(traced, words, scores)


def contrast_class(model: CLIPMapperCaption, word: str) -> int:
    """The class of a word's token, for ``against``.

    Raises ``UserError`` where the word is several sub-words, or none that the model can generate.
    """
    tokenizer, vocabulary = model.encoder.tokenizer, model.vocabulary
    ids = tokenizer.encode(word)
    if len(ids) != 1:
        parts = ", ".join(tokenizer.decoder[number] for number in ids) or "none"
        raise UserError(f"against={word}: CLIP's tokenizer makes {len(ids)} sub-words of it ({parts}); give one word")
    place = int(vocabulary.classes(np.array(ids))[0])
    if place == IGNORED:
        known = [vocabulary.text([number]) for number in vocabulary.ids]
        close = difflib.get_close_matches(word.lower(), known, n=3) or known[:5]
        raise UserError(f"against={word} is no word that the model can generate; close to it: {', '.join(close)}")
    return place


def _of_words(rows: Tensor, words: Sequence[Sequence[Word]]) -> Tensor:
    """The mean over each word's sub-words, [M, N] → [W, N]."""
    every = [word for caption in words for word in caption]
    lengths = torch.tensor([word.sub_words for word in every])
    word = torch.arange(len(every)).repeat_interleave(lengths).to(rows.device)
    return sentence_relevance(rows, torch.tensor(sub_word_weights(every, [1.0] * len(every))), word, len(every))


def in_chunks(captions: Sequence[Sequence[int]], sub_words: int) -> list[list[int]]:
    """The places of the captions that have words, in even batches of some ``sub_words`` sub-words."""
    places = [place for place, caption in enumerate(captions) if caption]
    if not places:
        return []
    total = sum(len(captions[place]) for place in places)
    count = min(len(places), max(1, total // sub_words))
    return split_evenly(places, count)
