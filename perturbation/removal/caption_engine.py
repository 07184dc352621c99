"""Captions pictures again without some of their patches: every distinct subset once, and only the patches that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.metrics.clipscore import clip_score, embed_captions, ref_clip_score
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption
from perturbation.arrays import Array
from perturbation.removal.engine import distinct, image_without
from perturbation.removal.reader import SubsetOutputs, Subsets


@dataclass(frozen=True)
class CaptionEngine:
    """Captions ``batch_size`` subsets of equally many patches at once, greedily, in up to ``max_length`` sub-words.

    ``removal`` is ``perturbation.removal.engine.Removal.image``: mask | mean.
    """

    model: CLIPMapperCaption
    batch_size: int
    max_length: int
    removal: str = "mask"

    @torch.inference_mode()
    def captions(self, pixels: Tensor, kept: Tensor, whole: Sequence[str]) -> list[list[str]]:
        """M captions of each of B pictures.

        Args:
            pixels: [B, 3, H, W].
            kept: bool [B, M, P], true where a patch stays; the class token always does.
            whole: The B captions of the pictures as they are.
        """
        vision = self.model.encoder.vision
        embedded = vision.embed(pixels)
        owners, subsets, places = distinct(torch.cat([kept.new_ones(*kept.shape[:2], 1), kept], 2))
        said = [whole[owner] for owner in owners.tolist()]
        counts = subsets.sum(1)
        for count in sorted({*counts.tolist()} - {vision.token_count}):
            for rows in (counts == count).nonzero()[:, 0].split(self.batch_size):
                image = image_without(vision, pixels, embedded, owners[rows], subsets[rows], self.removal)
                for row, ids in zip(rows.tolist(), greedy(self.model, image, self.max_length), strict=True):
                    said[row] = self.model.vocabulary.text(ids)
        return [[said[place] for place in row] for row in places.tolist()]


@dataclass(frozen=True, eq=False)
class CaptionSamples:
    """B pictures ``pixels`` [B, 3, H, W], what people say of each, and what the model says of it whole."""

    pixels: Tensor
    references: Sequence[Sequence[str]]
    captions: Sequence[str]


@dataclass(frozen=True, eq=False)
class CaptionReader:
    """Implements ``Reader``; its values are ``clip_score`` and ``ref_clip_score`` of what is said."""

    engine: CaptionEngine

    def read(self, samples: CaptionSamples, subsets: Subsets, asked: None = None) -> SubsetOutputs:
        """What is said of every subset of the patches, and how well it fits the whole picture.

        Raises:
            UserError: words are to be removed, of which the input has none.
        """
        if subsets.text is not None:
            raise UserError("task=caption: the model is given no words that could be removed; leave out this measure")
        batch, patches = len(samples.pixels), self.engine.model.encoder.vision.token_count - 1
        kept = np.ones((batch, 1, patches), dtype=np.bool_) if subsets.image is None else subsets.image
        on_device = torch.from_numpy(kept).to(samples.pixels.device)
        captions = self.engine.captions(samples.pixels, on_device, samples.captions)
        clip, ref = clip_scores(self.engine.model.encoder, samples.pixels, samples.references, captions)
        values = {"clip_score": clip, "ref_clip_score": ref}
        return SubsetOutputs(np.array(captions, dtype=object), values, "clip_score")


@torch.inference_mode()
def clip_scores(
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
