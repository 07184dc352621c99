"""Explanations of captions, one for each word."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import DoubtfulInput, examine
from clipmapper.explaining.output import seen_box
from clipmapper.explaining.partners import Partners
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import Word, sentence_relevance, split_words, sub_word_weights
from clipmapper.tasks.caption.tracing import TracedCaptions, trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner
from clipmapper.tasks.caption.vocabulary import IGNORED
from clipmapper.training.batches import split_evenly
from explain import AttentionTrace, Explainer, Needs, TraceError
from explain.sample.entry import trace_sample
from explain.sample.traced import Answer, Asked, Goal, TracedSample, View


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


@trace_sample.register
def trace_caption(model: CLIPMapperCaption, processor: Any, asked: Asked) -> TracedSample:
    """Trace a word of the caption that a model generates: by default the last one.

    The target names the word by its text (the first of several equal words) or its place, from 0; of a pair, the second
    is any word that the model can generate instead. The scores are means over the word's sub-words.

    Raises:
        ValueError: There is not one image, a text is given, or the target or an option does not fit.
        TraceError: A tensor contains NaN or Inf.
    """
    image = asked.photo(model)
    if asked.text is not None:
        raise ValueError(f"text={asked.text!r}: {type(model).__name__} writes a text itself; target names a word of it")
    if asked.word is not None:
        raise ValueError(f"word={asked.word!r}: target names the word of a caption of {type(model).__name__}")
    asked.check_no_layers(model)
    weight = next(model.trained.parameters())
    pixels = model.encoder.pixels([image]).to(weight.device, weight.dtype)
    for line in examine(model, pixels)[0].warnings:
        warnings.warn(line, DoubtfulInput, stacklevel=2)
    (caption,) = greedy(model, model.encoder.vision(pixels), model.encoder.text.context_length - 1)
    words = split_words(caption, model.encoder.tokenizer)
    named, over = asked.target if isinstance(asked.target, tuple) else (asked.target, None)
    place = _place([word.text for word in words], named)
    first, stop = list(pairwise(accumulate((word.sub_words for word in words), initial=0)))[place]
    against = None if over is None else _rival(model, str(over))
    traced = trace_captions(model, pixels, [caption], asked.needs, [0], against, [0], range(first, stop))
    classes = torch.from_numpy(model.vocabulary.classes(np.array(caption[first:stop])))
    shares = traced.logits.float().softmax(-1).cpu().gather(1, classes[:, None])
    return TracedSample(
        traced=traced,
        photos=[image],
        seen=[seen_box(image.size, model.encoder.vision.visual.preprocess_cfg)],
        views=[View(0)],
        words=traced.words[0] if asked.context and traced.words else [],
        question="",
        answer=Answer(model.vocabulary.text(caption)),
        explained=Answer(words[place].text, None if over is not None else float(shares.prod())),
        over=None if over is None else Answer(str(over)),
    )


def _rival(model: CLIPMapperCaption, word: str) -> int:
    """Return the class of a word's token.

    Raises:
        ValueError: The tokenizer splits the word into several sub-words, or the model can't generate it.
    """
    try:
        return contrast_class(model, word)
    except UserError as error:
        raise ValueError(str(error).replace("against=", "target: ", 1)) from error


def _place(words: list[str], goal: Goal) -> int:
    """Return the place of the word that a goal names.

    Raises:
        ValueError: The caption has no such word.
    """
    if goal is None and words:
        return len(words) - 1
    if isinstance(goal, int) and 0 <= goal < len(words):
        return goal
    if isinstance(goal, str) and goal.lower() in words:
        return words.index(goal.lower())
    raise ValueError(f"target={goal!r} is not a word of the caption: {' '.join(words) or 'it has none'}")
