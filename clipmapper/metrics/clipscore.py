"""CLIPScore and RefCLIPScore (Hessel et al., 2021): how well a caption fits its image, and the references too.

The scores are functions of embeddings in CLIP's shared space, whichever model they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipmapper.encoder.load import FrozenClip

PROMPT = "A photo depicts "
_WEIGHT = 2.5


def clip_score(images: Tensor, captions: Tensor) -> Tensor:
    """2.5 · max(cos(image, caption), 0) of embeddings [B, E] and [B, E] → [B], 0..2.5."""
    return _WEIGHT * torch.cosine_similarity(images, captions, dim=1).clamp(min=0)


def ref_clip_score(images: Tensor, captions: Tensor, references: Sequence[Tensor]) -> Tensor:
    """The harmonic mean of CLIPScore and of the closest reference's cosine, [B]; 0 where either is 0.

    Embeddings: images and captions [B, E], references B tensors [R_i, E]. The reference term is clamped at 0 as in the
    paper; the authors' code does not, which matters only where every reference points away from the caption. Raises
    ``ValueError`` where a caption has no reference.
    """
    if len(references) != len(captions) or not all(map(len, references)):
        raise ValueError("RefCLIPScore needs at least one reference embedding for each caption")
    owner = torch.cat([captions.new_full((len(r),), i, dtype=torch.long) for i, r in enumerate(references)])
    cosines = torch.cosine_similarity(captions[owner], torch.cat(list(references)), dim=1)
    closest = cosines.new_zeros(len(captions)).scatter_reduce(0, owner, cosines, "amax")  # with 0 itself: the clamp
    fit = clip_score(images, captions)
    total = fit + closest
    return torch.where(total > 0, 2 * fit * closest / total.where(total > 0, 1), 0)


@torch.no_grad()
def embed_captions(encoder: FrozenClip, captions: Sequence[str], batch_size: int = 256) -> Tensor:
    """Captions behind the prompt "A photo depicts " → [B, E], not normalised; cut off at the encoder's context."""
    device = encoder.text.shared_projection.device
    prompted = [PROMPT + caption for caption in captions]
    batches = [encoder.tokenize(prompted[i : i + batch_size]) for i in range(0, len(prompted), batch_size)]
    return torch.cat(
        [encoder.text.pooled(encoder.text(batch.ids.to(device), batch.valid.to(device))) for batch in batches]
    )
