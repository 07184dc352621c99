"""What is recorded of a batch of captioned pictures: how well what is said without patches fits the whole picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from clipmapper.data.caption_files import CaptionImage
from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.metrics.clipscore import clip_score, embed_captions, ref_clip_score
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import sentence_relevance, split_words, sub_word_weights
from clipmapper.tasks.caption.tracing import trace_captions
from explain import TraceError
from explain.capture.needs import Needs
from perturbation.config import PerturbCaptionsConfig
from perturbation.perturb.parts import SAMPLES, Tables
from perturbation.perturb.records import Entrant
from perturbation.removal.caption_engine import CaptionEngine
from perturbation.removal.masks import Array, Mask, Name, TokenScores, check_scores_of, curve_masks


@dataclass(frozen=True, eq=False)
class WeightedCaptions:
    """B pictures [B, 3, H, W] that people captioned, and the token ids of the model's own captions of them.

    ``weights`` has, by weighting, a number for every word of every caption; no caption is empty.
    """

    images: Sequence[CaptionImage]
    pixels: Tensor
    ids: Sequence[Sequence[int]]
    weights: Mapping[str, Sequence[Sequence[float]]]


class Said(NamedTuple):
    """M captions of each of B pictures, and their scores, [B, M] each."""

    captions: list[list[str]]
    clip_score: Array
    ref_clip_score: Array


@dataclass(frozen=True, eq=False)
class CaptionExaminer:
    """Puts batches of captioned pictures to the tests that a config asks for."""

    model: CLIPMapperCaption
    engine: CaptionEngine
    entrants: Sequence[Entrant]
    config: PerturbCaptionsConfig
    steps: Sequence[float]

    def examine(self, batch: WeightedCaptions) -> Tables:
        """The records of a batch, a row for every picture, explanation and direction.

        Raises:
            UserError: an explainer lacks something in this batch, or gives scores that cannot be ranked.
        """
        explained = self._explained(batch)
        scores = {entrant.label: each.double().cpu().numpy() for entrant, each in explained.items()}
        removable = np.ones_like(next(iter(scores.values())), dtype=np.bool_)
        tokens = TokenScores(removable, scores)
        check_scores_of(tokens, "image", [f"image {image.image_id}" for image in batch.images])
        said = self._said(batch, dict(curve_masks(tokens, self.steps, self.config.direction)))
        tables = [
            _table(batch, entrant, direction, said["curve", entrant.label, direction])
            for entrant in explained
            for direction in self.config.direction
        ]
        return {SAMPLES: tables}

    def _explained(self, batch: WeightedCaptions) -> dict[Entrant, Tensor]:
        """Eq. 20 for every explainer and weighting: the patches' part in the whole caption, [B, P]."""
        needs = Needs.of(entrant.explainer for entrant in self.entrants)
        names = [image.image_id for image in batch.images]
        weights = {name: self._of_sub_words(batch, each) for name, each in batch.weights.items()}
        found = {}
        try:
            traced = trace_captions(self.model, batch.pixels, batch.ids, needs, names)
            for entrant in self.entrants:
                rows = traced.scores(entrant.explainer(traced.trace, traced.rows), "image")
                for weighting, named in self._named(entrant).items():
                    found[named] = sentence_relevance(rows, weights[weighting].to(rows), traced.sample, len(names))
        except TraceError as error:
            raise UserError(f"captions of images {names[0]} to {names[-1]} cannot be explained: {error}") from error
        return found

    def _of_sub_words(self, batch: WeightedCaptions, weights: Sequence[Sequence[float]]) -> Tensor:
        """The weights of all sub-words, caption after caption, [M]."""
        tokenizer = self.model.encoder.tokenizer
        pairs = zip(batch.ids, weights, strict=True)
        return torch.tensor([w for ids, each in pairs for w in sub_word_weights(split_words(ids, tokenizer), each)])

    def _named(self, entrant: Entrant) -> dict[str, Entrant]:
        """By weighting, the entrant as it is recorded: controls keep their name and weigh all words equally."""
        if entrant.name in self.config.controls:
            return {"equal": entrant}
        return {w: Entrant(f"{entrant.name} {w}", entrant.seed, entrant.explainer) for w in self.config.weightings}

    def _said(self, batch: WeightedCaptions, masks: Mapping[Name, Mask]) -> dict[Name, Said]:
        """What is said under every mask [B, M, P], read in one pass."""
        kept = torch.from_numpy(np.concatenate(list(masks.values()), axis=1)).to(batch.pixels.device)
        whole = [self.model.vocabulary.text(ids) for ids in batch.ids]
        captions = self.engine.captions(batch.pixels, kept, whole)
        clip, ref = fits(self.model.encoder, batch.pixels, [image.captions for image in batch.images], captions)
        ends = np.cumsum([mask.shape[1] for mask in masks.values()])
        places = [slice(end - mask.shape[1], end) for mask, end in zip(masks.values(), ends, strict=True)]
        return {
            name: Said([row[place] for row in captions], clip[:, place], ref[:, place])
            for name, place in zip(masks, places, strict=True)
        }


@torch.inference_mode()
def fits(
    encoder: FrozenClip, pixels: Tensor, references: Sequence[Sequence[str]], captions: Sequence[Sequence[str]]
) -> tuple[Array, Array]:
    """CLIPScore and RefCLIPScore, [B, M] each, of M captions of each of B pictures [B, 3, H, W].

    An empty caption is scored as the prompt alone, as everywhere. Every picture has one or more references.
    """
    pictures = encoder.vision.pooled(encoder.vision(pixels))
    pairs = {pair: k for k, pair in enumerate(dict.fromkeys((b, t) for b, row in enumerate(captions) for t in row))}
    owner, spoken = [b for b, _ in pairs], [text for _, text in pairs]
    place = {text: k for k, text in enumerate(dict.fromkeys(spoken))}
    texts = embed_captions(encoder, list(place))[[place[text] for text in spoken]]
    others = embed_captions(encoder, [text for group in references for text in group])
    groups = others.split([len(group) for group in references])
    values = clip_score(pictures[owner], texts), ref_clip_score(pictures[owner], texts, [groups[b] for b in owner])
    at = np.array([[pairs[b, text] for text in row] for b, row in enumerate(captions)])
    clip, ref = (each.double().cpu().numpy()[at] for each in values)
    return clip, ref


def _table(batch: WeightedCaptions, entrant: Entrant, direction: str, said: Said) -> pa.Table:
    count = len(batch.images)
    return pa.table(
        {
            "image_id": pa.array([image.image_id for image in batch.images]),
            "modality": pa.array(["image"] * count),
            "explainer": pa.array([entrant.name] * count),
            "seed": pa.array([entrant.seed] * count),
            "direction": pa.array([direction] * count),
            "captions": pa.array(said.captions),
            "clip_score": pa.array(said.clip_score.tolist()),
            "ref_clip_score": pa.array(said.ref_clip_score.tolist()),
        }
    )
