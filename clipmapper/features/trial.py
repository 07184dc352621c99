"""Random features with the shapes of real ones, to time a training before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import FrozenClip
from clipmapper.nn import Tokens

Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most ``count`` items at equal distances."""
    return list(items[:: -(-len(items) // count) or 1])


def random_tokens(
    encoder: FrozenClip, config: EncoderConfig, texts: Sequence[str], count: int
) -> tuple[Tokens, Tokens]:
    """Return random features of images, [count, N, D], and of texts that are as long as some of the given ones.

    Args:
        encoder: The encoder, whose numbers of tokens and widths are used.
        config: Its config, which has the precision of the features.
        texts: Texts, of which there is at least one.
        count: Number of images and of texts.
    """
    some = spread(texts, count)
    valid = encoder.tokenize((some * count)[:count]).valid
    vision = torch.ones(count, encoder.vision.token_count, dtype=torch.bool)
    image, text = (
        Tokens(
            torch.randn(*mask.shape, width).to(getattr(torch, config.feature_dtype)),
            mask,
            torch.arange(mask.shape[1]).expand(count, -1),
        )
        for mask, width in ((vision, encoder.vision.width), (valid, encoder.text.width))
    )
    return image, text
