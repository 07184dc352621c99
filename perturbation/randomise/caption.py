"""Captions in the model randomisation test.

The captions of the original model are explained throughout, also after layers are randomised. The test compares the
relevance of the patches to the whole caption (Huang et al. 2023, Eq. 20), with equal weights for all words. The text
tokens are not compared, because they are the model's own earlier words and not part of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clipmapper.choice import describe
from clipmapper.config.explain import ExplainedConfig
from clipmapper.tasks.caption.explaining import explain_words
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import sentence_relevance
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner, load_trained
from explain import AttentionTrace, Explainer, Needs
from perturbation.measures.base import ScoredBy, TokenScores
from perturbation.randomise.layers import layers_from_the_top

MODALITIES = ("image",)
UNIT = "images"  # word for the samples in messages


layers = layers_from_the_top


def name_of(trained: TrainedCaptioner) -> str:
    """Return the checkpoint, with what is known about its training."""
    return f"checkpoint: {describe(trained.checkpoint)}"


def load(config: ExplainedConfig) -> TrainedCaptioner:
    """Load the model and the images of the config's split."""
    return load_trained(config, config.split, config.checkpoint)


def usable(
    trained: TrainedCaptioner, chosen: Sequence[CaptionedBatch], explainers: Mapping[str, Explainer]
) -> Mapping[str, Explainer]:
    """Return the explainers that can explain the model: all."""
    return explainers


def fixed(trained: TrainedCaptioner, rows: Sequence[int]) -> CaptionedBatch | None:
    """Return the images of these rows with the model's captions, or None if no image has a caption with a word."""
    batch = trained.batch(rows)
    spoken = [] if batch is None else [place for place, ids in enumerate(batch.captions) if ids]
    return batch.part(spoken) if batch is not None and spoken else None


def explained(
    model: CLIPMapperCaption, samples: CaptionedBatch, explainers: Mapping[str, Explainer], names: Sequence[int | str]
) -> dict[str, TokenScores]:
    """Explain the captions and return the patches' relevance to the whole caption, by modality (only ``image``).

    Args:
        model: The captioning model.
        samples: The images and the captions to explain.
        explainers: Explainers by name.
        names: Names of the captions, from which explainers seed their random draws.
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


def trace(
    model: CLIPMapperCaption, chosen: Sequence[CaptionedBatch], ids: Sequence[int], needs: Needs
) -> AttentionTrace:
    """Trace the captions of the images with these ids, which may be of several batches."""
    places = {number: (batch, place) for batch in chosen for place, number in enumerate(batch.ids)}
    found = [places[number] for number in ids]
    pixels, captions = torch.stack([batch.pixels[k] for batch, k in found]), [batch.captions[k] for batch, k in found]
    return trace_captions(model, pixels, captions, needs, ids, picture_ids=ids).trace
