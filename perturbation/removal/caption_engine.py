"""The captioning model without some patches: it captions images again from the kept patches.

Every distinct subset of patches is captioned once, and removed patches are not computed.
"""

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
    """A captioning model that reads subsets of an image's patches, with greedy decoding.

    Up to ``batch_size`` subsets with the same number of patches are captioned at once. A caption has at most
    ``max_length`` sub-words. ``removal`` is ``mask`` or ``mean`` (``perturbation.removal.engine.Removal.image``).
    """

    model: CLIPMapperCaption
    batch_size: int
    max_length: int
    removal: str = "mask"

    @torch.inference_mode()
    def captions(self, pixels: Tensor, kept: Tensor, whole: Sequence[str]) -> list[list[str]]:
        """Return M captions of each of B images.

        Args:
            pixels: [B, 3, H, W].
            kept: Kept patches, bool [B, M, P]; the class token is always kept.
            whole: The B captions with nothing removed, which are not computed again.
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
    """B images with their captions."""

    pixels: Tensor  #: [B, 3, H, W]
    references: Sequence[Sequence[str]]  #: captions by people, one or more for each image
    captions: Sequence[str]  #: the model's caption of each image with nothing removed


@dataclass(frozen=True, eq=False)
class CaptionReader:
    """The reader of a captioning model; implements ``Reader``.

    Its values are ``clip_score`` and ``ref_clip_score`` of the new captions. The response is ``clip_score``.
    """

    engine: CaptionEngine

    def read(self, samples: CaptionSamples, subsets: Subsets, asked: None = None) -> SubsetOutputs:
        """Caption every subset of the patches, and score the captions against the full image and the references.

        Raises:
            UserError: The subsets remove text tokens, but the model's input has none.
        """
        if subsets.text is not None:
            raise UserError("task=caption: the model's input has no words that can be removed; leave out this measure")
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
    """Return CLIPScore and RefCLIPScore, [B, M] each.

    An empty caption gets the score of CLIPScore's prompt alone, as in the evaluation of captions.

    Args:
        encoder: The CLIP encoder.
        pixels: [B, 3, H, W].
        references: For each image, one or more captions by people.
        captions: For each image, M captions to score.
    """
    images = encoder.vision.pooled(encoder.vision(pixels))
    pairs = {pair: k for k, pair in enumerate(dict.fromkeys((b, t) for b, row in enumerate(captions) for t in row))}
    owner, spoken = [b for b, _ in pairs], [text for _, text in pairs]
    place = {text: k for k, text in enumerate(dict.fromkeys(spoken))}
    texts = embed_captions(encoder, list(place))[[place[text] for text in spoken]]
    others = embed_captions(encoder, [text for group in references for text in group])
    groups = others.split([len(group) for group in references])
    values = clip_score(images[owner], texts), ref_clip_score(images[owner], texts, [groups[b] for b in owner])
    at = np.array([[pairs[b, text] for text in row] for b, row in enumerate(captions)])
    clip, ref = (each.double().cpu().numpy()[at] for each in values)
    return clip, ref
