"""The mapper that a config names, and its first weights.

Both modalities begin where CLIP can compare them, and like attends to like.

CLIP's own projections map image and text tokens into one space, in which a patch is near the words for it. A mapper
that begins there, with queries equal to keys, finds out what the question asks about sooner than one that
has to discover the match between two unrelated spaces. (Equal queries and keys: Trockman and Kolter 2023, "Mimetic
initialization of self-attention layers".)

In mapper B, self-attention and cross-attention have weights of their own. In mapper A one attention serves both, and
what is most like a token is of its own modality; :func:`alternate_modalities` makes every other block look across.
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
START_SAMPLES = 512  # training samples that tell where the modalities lie
QUERY_GAIN = 1.4  # of mapper A's initial queries: attention among the tokens of both modalities begins less even


def build_mapper(
    config: MapperConfig, image_width: int, text_width: int, image_tokens: int, text_tokens: int
) -> Mapper:
    """The mapper a config names, for encoders of these widths and (at most) these numbers of tokens."""
    return MAPPERS[config.name](config, image_width, text_width, image_tokens, text_tokens)


def initialise(mapper: Mapper, config: MapperConfig, encoder: FrozenClip, samples: tuple[Tokens, Tokens]) -> None:
    """Gives a mapper the first weights that ``config.start`` names.

    Args:
        mapper: The mapper, with PyTorch's own first weights.
        config: Its config.
        encoder: The encoder whose projections an ``aligned`` mapper begins with.
        samples: Image and text tokens of some training samples, by whose means mapper A tells the modalities apart.
    """
    if config.start != "aligned":
        return
    start_aligned(mapper, encoder.vision.shared_projection, encoder.text.shared_projection)
    if isinstance(mapper, SingleStream):
        alternate_modalities(mapper, *samples)


@torch.no_grad()
def start_aligned(mapper: Mapper, image: Tensor, text: Tensor) -> None:
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


@torch.no_grad()
def alternate_modalities(mapper: SingleStream, image: Tokens, text: Tokens) -> None:
    """Tokens of some samples tell the modalities' means: has each block attend within or, in turn, across modalities.

    Both modalities are centred and moved apart along one random direction, by as much as their tokens vary. Blocks at
    odd places begin with keys reflected along that direction, so that a token finds its like in the other modality.
    """
    direction = torch.randn(mapper.project_image.linear.out_features)
    direction -= direction.mean()  # layer norms take the mean away
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
