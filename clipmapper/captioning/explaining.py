"""Explanations of captions, word by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipmapper.captioning.model import CLIPMapperCaption
from clipmapper.captioning.sentence import Word, sentence_relevance, split_words, sub_word_weights
from clipmapper.captioning.subject import CaptionedBatch
from clipmapper.captioning.tracing import TracedCaptions, trace_captions
from explain import Explainer
from explain.capture.needs import Needs


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
    model: CLIPMapperCaption, batch: CaptionedBatch, explainers: Mapping[str, Explainer]
) -> ExplainedWords:
    """Scores of every explainer from one trace of the batch, whose captions all have words.

    Raises:
        TraceError: the trace holds NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values())
    ids = [image.image_id for image in batch.images]
    traced = trace_captions(model, batch.pixels, batch.captions, needs, ids)
    words = tuple(split_words(caption, model.encoder.tokenizer) for caption in batch.captions)
    scores = {name: _of_words(each(traced.trace, traced.rows), words) for name, each in explainers.items()}
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
