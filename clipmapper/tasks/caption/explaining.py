"""Explanations of captions, word by word."""

from __future__ import annotations

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
from explain import Explainer, TraceError


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
    checkpoint: Path | None = None,
) -> ExplainedWords:
    """Compute the scores of every explainer from one trace of the batch, whose captions all have words.

    Args:
        model: In evaluation mode.
        batch: B pictures with their captions.
        explainers: By name.
        checkpoint: Where the model came from, for the error; None names the pictures.

    Raises:
        UserError: the trace holds NaN or Inf, or lacks what an explainer needs.
    """
    needs = {field for explainer in explainers.values() for field in explainer.needs}
    ids = [image.image_id for image in batch.images]
    words = tuple(split_words(caption, model.encoder.tokenizer) for caption in batch.captions)
    try:
        traced = trace_captions(model, batch.pixels, batch.captions, needs, ids)
        scores = {name: _of_words(each(traced.trace, traced.rows), words) for name, each in explainers.items()}
    except TraceError as error:
        what = checkpoint or f"captions of images {ids[0]} to {ids[-1]}"
        raise UserError(f"{what} can't be explained: {error}") from error
    return ExplainedWords(traced, words, scores)


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
    return [part.tolist() for part in np.array_split(np.asarray(places), count)]
