"""The mapper's first weights: both modalities begin where CLIP can compare them, and like attends to like.

CLIP's own projections map image and text tokens into one space, in which a patch is near the words for it. A mapper
that begins there, with queries equal to keys, finds out what the question asks about sooner than one that
has to discover the match between two unrelated spaces. (Equal queries and keys: Trockman and Kolter 2023, "Mimetic
initialization of self-attention layers".)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipmapper.mapper.blocks import AttentionSublayer, TokenProjection
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.mapper.single_stream import SingleStream


@torch.no_grad()
def start_aligned(mapper: SingleStream | DualStream, image: Tensor, text: Tensor) -> None:
    """Sets the projections from CLIP's, ``image`` [D_v, E] and ``text`` [D_t, E], and ties queries to keys.

    Where the mapper is wider than E, its further channels keep their random start; where it is narrower, it begins with
    the first channels of the shared space.
    """
    for projection, shared in ((mapper.project_image, image), (mapper.project_text, text)):
        _copy_rows(projection, shared.T)
    for module in mapper.modules():
        if isinstance(module, AttentionSublayer):
            nn.init.orthogonal_(module.query.weight)
            module.key_value.weight[: module.query.out_features] = module.query.weight


def _copy_rows(projection: TokenProjection, rows: Tensor) -> None:
    weight = projection.linear.weight
    count = min(len(weight), len(rows))
    weight[:count] = rows[:count].to(weight.dtype)
