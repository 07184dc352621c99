"""Explanations of captions, one for each word."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.explaining.partners import Partners
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import Word, sentence_relevance, split_words, sub_word_weights
from clipmapper.tasks.caption.tracing import TracedCaptions, trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner
from clipmapper.tasks.caption.vocabulary import IGNORED
from clipmapper.training.batches import split_evenly
from explain import AttentionTrace, Explainer, Needs, TraceError


@dataclass(frozen=True, eq=False)
class ExplainedWords:
    """Explanations of all W words of a batch's captions, caption after caption.

    A word's scores are the mean of its sub-words' scores, so that the weighted sum (Huang et al. 2023, Eq. 20) over
    words equals the one over sub-words.
    """

    traced: TracedCaptions
    words: tuple[list[Word], ...]  #: words of each caption
    scores: Mapping[str, Tensor]  #: scores of the joint positions by explainer, [W, N]


def explain_words(
    model: CLIPMapperCaption,
    batch: CaptionedBatch,
    explainers: Mapping[str, Explainer],
    against: int | None = None,
    sample_ids: Sequence[int | str] | None = None,
    checkpoint: Path | None = None,
) -> ExplainedWords:
    """Compute the scores of every explainer from one trace of the batch; every caption must have at least one word.

    Args:
        model: The model in evaluation mode.
        batch: B images with their captions.
        explainers: Explainers by name.
        against: A class of the model's head, whose logit is subtracted from that of each word (:func:`contrast_class`).
        sample_ids: Names of the captions, which seed random draws; by default the images' ids.
        checkpoint: The model's file, which the error message names; None names the images instead.

    Raises:
        UserError: The trace contains NaN or Inf, or lacks what an explainer needs.
    """
    needs = Needs.of(explainers.values())
    names = batch.ids if sample_ids is None else sample_ids
    words = tuple(split_words(caption, model.encoder.tokenizer) for caption in batch.captions)
    try:
        traced = trace_captions(model, batch.pixels, batch.captions, needs, names, against, batch.ids)
        scores = {name: average_sub_words(each(traced.trace, traced.rows), words) for name, each in explainers.items()}
    except TraceError as error:
        what = checkpoint or f"captions of images {batch.ids[0]} to {batch.ids[-1]}"
        raise UserError(f"{what} can't be explained: {error}") from error
    return ExplainedWords(traced, words, scores)


def caption_partners(trained: TrainedCaptioner, rows: Sequence[int], seed: int, against: int | None = None) -> Partners:
    """Return the partners of a run's images, whose captions are generated again when they are needed.

    Args:
        trained: The model and its images.
        rows: The run's images.
        seed: Seed of the draws.
        against: As in :func:`explain_words`.
    """
    row_of = {trained.images[row].image_id: row for row in rows}

    def trace(ids: Sequence[int], needs: Needs) -> AttentionTrace | None:
        batch = trained.batch([row_of[each] for each in ids])
        if batch is None or not batch.items:
            return None
        return trace_captions(trained.model, batch.pixels, batch.captions, needs, batch.ids, against, batch.ids).trace

    return Partners({number: number for number in row_of}, seed, trace)


def contrast_class(model: CLIPMapperCaption, word: str) -> int:
    """Return the class of a word's token, for ``against``.

    Raises:
        UserError: The tokenizer splits the word into several sub-words, or the model can't generate it.
    """
    tokenizer, vocabulary = model.encoder.tokenizer, model.vocabulary
    ids = tokenizer.encode(word)
    if len(ids) != 1:
        parts = ", ".join(tokenizer.decoder[number] for number in ids) or "none"
        raise UserError(
            f"against={word}: CLIP's tokenizer splits it into {len(ids)} sub-words ({parts}); "
            "give a word of one sub-word"
        )
    place = int(vocabulary.classes(np.array(ids))[0])
    if place == IGNORED:
        known = [vocabulary.text([number]) for number in vocabulary.ids]
        close = difflib.get_close_matches(word.lower(), known, n=3) or known[:5]
        raise UserError(f"against={word} is not a word that the model can generate; similar ones: {', '.join(close)}")
    return place


def average_sub_words(rows: Tensor, words: Sequence[Sequence[Word]]) -> Tensor:
    """Return the mean over each word's sub-words: [M, N] → [W, N]."""
    every = [word for caption in words for word in caption]
    lengths = torch.tensor([word.sub_words for word in every])
    word = torch.arange(len(every)).repeat_interleave(lengths).to(rows.device)
    return sentence_relevance(rows, torch.tensor(sub_word_weights(every, [1.0] * len(every))), word, len(every))


def in_chunks(captions: Sequence[Sequence[int]], sub_words: int) -> list[list[int]]:
    """Split the positions of captions that have words into batches of about ``sub_words`` sub-words each."""
    places = [place for place, caption in enumerate(captions) if caption]
    if not places:
        return []
    total = sum(len(captions[place]) for place in places)
    count = min(len(places), max(1, total // sub_words))
    return split_evenly(places, count)
