"""Captions under the randomisation test: the untouched model's captions are explained, whatever becomes of the model.

What is compared is the relevance of the patches to the whole caption (Eq. 20 of Huang et al. 2023), words counting
alike: the text tokens before a word are the model's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clipmapper.config.explain import SubjectConfig
from clipmapper.tasks.caption.explaining import explain_words
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import sentence_relevance
from clipmapper.tasks.caption.trained import CaptionedBatch, CaptionSubject, load_caption_subject
from explain import Explainer
from perturbation.measures.base import ScoredBy, TokenScores

UNIT = "images"  # what messages call the samples


def load(config: SubjectConfig) -> CaptionSubject:
    """The model, and the pictures of the config's split."""
    return load_caption_subject(config, config.split, config.checkpoint)


def fixed(trained: CaptionSubject, rows: Sequence[int]) -> CaptionedBatch | None:
    """The pictures of these rows with the model's captions, without those of which it says nothing; None for none."""
    batch = trained.batch(rows)
    spoken = [] if batch is None else [place for place, ids in enumerate(batch.captions) if ids]
    return batch.part(spoken) if batch is not None and spoken else None


def explained(
    model: CLIPMapperCaption, samples: CaptionedBatch, explainers: Mapping[str, Explainer], names: Sequence[int | str]
) -> dict[str, TokenScores]:
    """The patches, all of which take part, and their scores by explainer.

    ``names`` are those of the captions, for what is drawn at random.
    """
    found = explain_words(model, samples, explainers, sample_ids=names)
    counts = torch.tensor([len(words) for words in found.words])
    caption = torch.arange(len(counts)).repeat_interleave(counts)
    weights = (1 / counts.double())[caption]
    scores = {}
    for name, each in found.scores.items():
        patches = found.traced.scores(each, "image").cpu().double()
        scores[ScoredBy(name)] = sentence_relevance(patches, weights, caption, len(counts)).numpy()
    return {"image": TokenScores(np.ones_like(next(iter(scores.values())), dtype=np.bool_), scores)}
