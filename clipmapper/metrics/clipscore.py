"""CLIPScore and RefCLIPScore (Hessel et al., 2021): how well a caption fits its image, and its references as well.

The scores take embeddings in the shared space of a CLIP model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipmapper.encoder.load import FrozenClip

PROMPT = "A photo depicts "
_WEIGHT = 2.5


def clip_score(images: Tensor, captions: Tensor) -> Tensor:
    """Return CLIPScore, 2.5 · max(cos(image, caption), 0), 0..2.5: embeddings [B, E] and [B, E] → [B]."""
    return _WEIGHT * torch.cosine_similarity(images, captions, dim=1).clamp(min=0)


def ref_clip_score(images: Tensor, captions: Tensor, references: Sequence[Tensor]) -> Tensor:
    """Return RefCLIPScore, the harmonic mean of CLIPScore and the closest reference's cosine; 0 where either is 0.

    The cosine of the references is clamped at 0 as in the paper. The authors' code doesn't clamp it, which differs only
    where all references have a negative cosine with the caption.

    Args:
        images: Image embeddings, [B, E].
        captions: Caption embeddings, [B, E].
        references: Embeddings of each caption's references, B tensors [R_i, E].

    Returns:
        Scores, [B].

    Raises:
        ValueError: A caption has no reference.
    """
    if len(references) != len(captions) or not all(map(len, references)):
        raise ValueError("RefCLIPScore needs at least one reference embedding for each caption")
    owner = torch.cat([captions.new_full((len(r),), i, dtype=torch.long) for i, r in enumerate(references)])
    cosines = torch.cosine_similarity(captions[owner], torch.cat(list(references)), dim=1)
    closest = cosines.new_zeros(len(captions)).scatter_reduce(0, owner, cosines, "amax")  # starts from 0: the clamp
    fit = clip_score(images, captions)
    total = fit + closest
    return torch.where(total > 0, 2 * fit * closest / total.where(total > 0, 1), 0)


@torch.no_grad()
def embed_captions(encoder: FrozenClip, captions: Sequence[str], batch_size: int = 256) -> Tensor:
    """Return the embeddings of captions after the prompt "A photo depicts ", [B, E], not normalised.

    Captions are cut off at the encoder's context length.
    """
    device = encoder.text.shared_projection.device
    prompted = [PROMPT + caption for caption in captions]
    batches = [encoder.tokenize(prompted[i : i + batch_size]) for i in range(0, len(prompted), batch_size)]
    return torch.cat(
        [encoder.text.pooled(encoder.text(batch.ids.to(device), batch.valid.to(device))) for batch in batches]
    )
