"""The captioning model without some patches: it captions images again, or reads given captions again.

Every distinct subset of patches is read once, and removed patches are not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipmapper.encoder.load import FrozenClip
from clipmapper.errors import UserError
from clipmapper.metrics.clipscore import clip_score, embed_captions, ref_clip_score
from clipmapper.nn import Tokens
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.tracing import caption_inputs
from perturbation.arrays import Array
from perturbation.removal.engine import distinct, image_without, with_first
from perturbation.removal.pixels import ImageRemoval, patch_filler
from perturbation.removal.reader import SubsetOutputs, Subsets


@dataclass(frozen=True)
class CaptionEngine:
    """A captioning model that reads subsets of an image's patches, with greedy decoding.

    Up to ``batch_size`` subsets with the same number of patches are captioned at once. A caption has at most
    ``max_length`` sub-words. ``removal`` and ``seed`` are ``image`` and ``seed`` of
    :class:`~perturbation.removal.engine.Removal`.
    """

    model: CLIPMapperCaption
    batch_size: int
    max_length: int
    removal: ImageRemoval = "mask"
    seed: int = 0

    @torch.inference_mode()
    def captions(self, pixels: Tensor, kept: Tensor, whole: Sequence[str], ids: Sequence[int] = ()) -> list[list[str]]:
        """Return M captions of each of B images.

        Args:
            pixels: [B, 3, H, W].
            kept: Kept patches, bool [B, M, P]; the class token is always kept.
            whole: The B captions with nothing removed, which are not computed again.
            ids: Ids of the B images; the removals ``mask`` and ``mean`` need none.
        """
        owners, subsets, places = distinct(with_first(kept, self.model.encoder.vision))
        said = [whole[owner] for owner in owners.tolist()]
        for rows, image in self._encoded(pixels, ids, owners, subsets, ~subsets.all(1)):
            for row, caption in zip(rows.tolist(), greedy(self.model, image, self.max_length), strict=True):
                said[row] = self.model.vocabulary.text(caption)
        return [[said[place] for place in row] for row in places.tolist()]

    @torch.inference_mode()
    def token_probabilities(self, pixels: Tensor, kept: Tensor, captions: Sequence[Sequence[int]]) -> Tensor:
        """Return the probability of each token of given captions after the tokens before it, [B, M, T].

        All tokens of a caption are read in one pass per subset; the values at padding have no meaning. The removal must
        be ``mask`` or ``mean``.

        Args:
            pixels: [B, 3, H, W].
            kept: Kept patches, bool [B, M, P]; the class token is always kept.
            captions: B captions of up to T tokens, without start and end token.
        """
        inputs = caption_inputs(self.model, captions, pixels.device)
        text = self.model.encoder.text(inputs.text.ids, inputs.text.valid)
        owners, subsets, places = distinct(with_first(kept, self.model.encoder.vision))
        found = torch.empty(len(owners), inputs.classes.shape[1], device=pixels.device)
        for rows, image in self._encoded(pixels, (), owners, subsets, subsets.any(1)):
            owner = owners[rows]
            words = Tokens(text.features[owner], text.valid[owner], text.index[owner])
            probability = self.model.trained(image, words)[:, :-1].float().softmax(-1)
            found[rows] = probability.gather(-1, inputs.classes[owner][:, :, None])[:, :, 0]
        return found[places]

    def _encoded(
        self, pixels: Tensor, ids: Sequence[int], owners: Tensor, subsets: Tensor, wanted: Tensor
    ) -> Iterator[tuple[Tensor, Tokens]]:
        """Yield the indices and encoded images of the wanted subsets, in batches with the same number of patches."""
        vision = self.model.encoder.vision
        embedded = vision.embed(pixels)
        filler = patch_filler(vision, pixels, self.removal, self.seed, ids)
        counts = subsets.sum(1)
        for count in counts[wanted].unique().tolist():
            for rows in (wanted & (counts == count)).nonzero()[:, 0].split(self.batch_size):
                yield rows, image_without(vision, embedded, owners[rows], subsets[rows], filler)


@dataclass(frozen=True, eq=False)
class CaptionSamples:
    """B images with their captions."""

    pixels: Tensor  #: [B, 3, H, W]
    references: Sequence[Sequence[str]]  #: captions by people, one or more for each image
    captions: Sequence[str]  #: the model's caption of each image with nothing removed
    ids: Sequence[int] = ()  #: ids of the images; the removals ``mask`` and ``mean`` need none


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
        batch, patches = len(samples.pixels), self.engine.model.encoder.vision.patches
        kept = np.ones((batch, 1, patches), dtype=np.bool_) if subsets.image is None else subsets.image
        on_device = torch.from_numpy(kept).to(samples.pixels.device)
        captions = self.engine.captions(samples.pixels, on_device, samples.captions, samples.ids)
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
