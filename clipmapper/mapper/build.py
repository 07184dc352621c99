"""Building and initialising a mapper from its config.

The ``aligned`` start puts both modalities into CLIP's shared space and makes each token attend to similar tokens:

- CLIP's projections map image and text tokens into one space, in which a patch is near the words that describe it. A
  mapper that begins in this space learns sooner which patches a question is about than one that has to find the match
  between two unrelated spaces.
- Queries equal keys at the start, as in Trockman and Kolter 2023, "Mimetic initialization of self-attention layers".

Mapper B has separate weights for self-attention and cross-attention. In mapper A, one attention does both, and the
tokens most similar to a token belong to its own modality. Therefore :func:`alternate_modalities` makes every second
block of mapper A attend across modalities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipmapper.config.schema import MapperConfig
from clipmapper.encoder.load import FrozenClip
from clipmapper.mapper.blocks import AttentionSublayer, TokenProjection
from clipmapper.mapper.dual_stream import DualStream
from clipmapper.mapper.single_stream import SingleStream
from clipmapper.nn import Tokens

Mapper = SingleStream | DualStream
MAPPERS: dict[str, type[SingleStream] | type[DualStream]] = {"a": SingleStream, "b": DualStream}
START_SAMPLES = 512  # number of training samples from which the modalities' mean tokens are computed
QUERY_GAIN = 1.4  # scale of mapper A's initial queries, which makes its initial attention less uniform


def build_mapper(
    config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int
) -> Mapper:
    """Build the mapper that a config names, with PyTorch's default initial weights.

    Args:
        config: The mapper's config.
        image_width: Width of the encoder's image tokens.
        text_width: Width of the encoder's text tokens.
        image_tokens: Greatest number of image tokens.
        text_tokens: Greatest number of text tokens.
    """
    return MAPPERS[config.name](config, image_width, text_width, image_tokens, text_tokens)


def initialise(mapper: Mapper, config: MapperConfig, encoder: FrozenClip, samples: tuple[Tokens, Tokens]) -> None:
    """Give a mapper the initial weights that ``config.start`` names.

    Args:
        mapper: The mapper, with PyTorch's default initial weights.
        config: The mapper's config.
        encoder: The encoder whose projections the ``aligned`` start uses.
        samples: Image and text tokens of some training samples; mapper A centres each modality on their mean.
    """
    if config.start != "aligned":
        return
    start_aligned(mapper, encoder.vision.shared_projection, encoder.text.shared_projection)
    if isinstance(mapper, SingleStream):
        alternate_modalities(mapper, *samples)


@torch.no_grad()
def start_aligned(mapper: Mapper, image: Tensor, text: Tensor) -> None:
    """Copy CLIP's projections into the mapper's, and set keys equal to (orthogonal) queries.

    If the mapper is wider than the shared space, its remaining channels keep their random weights. If it is narrower,
    it gets the first channels of the shared space.

    Args:
        mapper: The mapper to change.
        image: CLIP's projection of image tokens to the shared space, [D_v, E].
        text: CLIP's projection of text tokens to the shared space, [D_t, E].
    """
    for projection, shared in ((mapper.project_image, image), (mapper.project_text, text)):
        _copy_rows(projection, shared.T)
    for module in mapper.modules():
        if isinstance(module, AttentionSublayer):
            nn.init.orthogonal_(module.query.weight)
            module.key_value.weight[: module.query.out_features] = module.query.weight


@torch.no_grad()
def alternate_modalities(mapper: SingleStream, image: Tokens, text: Tokens) -> None:
    """Make mapper A's blocks attend within a modality and across modalities in turn, at the start of training.

    Each modality is centred and then moved along one random direction, the image one way and the text the other, by the
    mean distance of its tokens from their centre. Blocks at odd positions begin with keys reflected along that
    direction, so that a token attends to similar tokens of the other modality.

    Args:
        mapper: Mapper A after :func:`start_aligned`.
        image: Image tokens of some training samples.
        text: Text tokens of the same samples.
    """
    direction = torch.randn(mapper.project_image.linear.out_features)
    direction -= direction.mean()  # layer norms subtract the mean over channels, so a mean would have no effect
    direction /= direction.norm()
    for side, projection, tokens in ((direction, mapper.project_image, image), (-direction, mapper.project_text, text)):
        x = projection(tokens)[tokens.valid]
        projection.linear.bias.add_(side * (x - x.mean(0)).norm(dim=1).mean() - x.mean(0))
    reflection = torch.eye(len(direction)) - 2 * torch.outer(direction, direction)
    for place, module in enumerate(mapper.attentions):
        assert isinstance(module, AttentionSublayer)
        if place % 2:
            module.key_value.weight[: len(direction)] = module.query.weight @ reflection
        module.query.weight *= QUERY_GAIN


def _copy_rows(projection: TokenProjection, rows: Tensor) -> None:
    weight = projection.linear.weight
    count = min(len(weight), len(rows))
    weight[:count] = rows[:count].to(weight.dtype)
